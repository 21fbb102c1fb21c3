"""What every origin hands over: how to make a module, and what is known of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from resdeploy.errors import UsageError
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.records import ModelOptions, Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A module in eval mode and how images become its input.

    module: on the CPU, or on the meta device where it was asked for without weights.
    num_classes: None where only an answer of the module shows it.
    notes: sentences that the user should read.
    """

    module: nn.Module
    preprocess: Preprocess
    in_channels: int
    num_classes: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Weights on the net, and the preprocessing they were trained with.

    url: None where the client of the reference's hub finds the file.
    """

    url: str | None
    sha256: str | None
    preprocess: Preprocess


class Blueprint(Protocol):
    """How to make the module that a model reference and its options name."""

    @property
    def reference(self) -> str:
        """The model reference, as written."""
        ...

    @property
    def options(self) -> ModelOptions:
        """What was asked for beyond the name."""
        ...

    def make(self, seed: int | None) -> Made:
        """The module with weights drawn from `seed`; with None, one that is yet to be filled.

        Torch's global random generator is left as it was.
        """
        ...

    def fitted(self, checkpoint: Checkpoint) -> Blueprint:
        """The same with the number of classes and input channels of a checkpoint."""
        ...

    def pretrained(self) -> str:
        """The weights reference that `pretrained` stands for.

        Raises:
            WeightsError: none is known.
        """
        ...

    def published(self) -> dict[str, Published]:
        """Files of weights that are known for this model, by weights reference."""
        ...

    @property
    def has_own_weights(self) -> bool:
        """Whether making the module may put trained weights into it."""
        ...

    def code(self) -> str:
        """What names the code behind the module, once that has run; empty for our own models."""
        ...


def refuse(options: ModelOptions, names: tuple[str, ...], why: str) -> None:
    """Refuse those of `names` that were asked for.

    Raises:
        UsageError: one of them was.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"{name} is {getattr(options, name)}, but {why}", hint="leave it out")


FAMILY_ONLY = ("norm", "width", "output_stride")


def refuse_family_options(options: ModelOptions, reference: str) -> None:
    """Refuse the options that only our own builder has.

    Raises:
        UsageError: one of them was asked for.
    """
    refuse(options, FAMILY_ONLY, f"only models of `resdeploy models` take it, not {reference}")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` in the block; afterwards torch's generator is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
