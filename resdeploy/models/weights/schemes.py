"""Weights references: what a user writes after --weights enters, a source of weights leaves.

The forms are those of SCHEMES; anything else is the path of a checkpoint file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from resdeploy.contracts import Progress
from resdeploy.errors import UnknownNameError, UsageError, WeightsError
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.origins.blueprint import Blueprint
from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
from resdeploy.models.weights.download import fetch_url
from resdeploy.models.weights.hub import fetch_hub
from resdeploy.records import Preprocess
from resdeploy.table import Table

SEED_LIMIT = 2**63  # torch's generators take a signed 64-bit seed
YES = ("1", "ON", "YES", "TRUE")  # what huggingface_hub takes for a yes


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWeights:
    """Initial weights, drawn from this seed."""

    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWeights:
    """The weights that whoever makes the module puts into it, which are trained ones.

    Made with one seed, whatever a recipe's is: no seed is on record, and all commands must make
    the same module.
    """

    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """A checkpoint, and the preprocessing it was trained with where that is on record.

    origin: a URL, or `hf:ORG/REPO@COMMIT/file`; empty where a file was named.
    """

    checkpoint: Checkpoint
    preprocess: Preprocess | None = None
    origin: str = ""
    notes: tuple[str, ...] = ()


Weights = RandomWeights | OwnWeights | TrainedWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom weights are for. seed: of random ones whose reference names none."""

    blueprint: Blueprint
    seed: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The word before the colon of a weights reference.

    form: how such a reference is written.
    weights_of: takes what follows the colon, empty where nothing does.
    """

    name: str
    form: str
    weights_of: Callable[[str, Asked], Weights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Weights in the package: a file under resdeploy/assets, and the variant it is for."""

    name: str
    variant: str
    file: str
    preprocess: Preprocess


def weights_of(written: str | Path, asked: Asked) -> Weights:
    """The weights that a reference names; a Path is a file, whatever it is called.

    Raises:
        UsageError: a reference that is not complete, or makes no sense for this model.
        UnknownNameError: no such embedded or published weights.
        WeightsError: a checkpoint that cannot be read, or weights that nobody knows.
        DownloadError: weights that cannot be fetched.
    """
    scheme, _, rest = str(written).partition(":")
    if scheme in SCHEMES and isinstance(written, str):
        return SCHEMES[scheme].weights_of(rest, asked)
    if not os.path.exists(written):
        forms = ", ".join(row.form for row in SCHEMES)
        raise WeightsError(
            f"there is no weights file {written}", hint=f"weights are a file, or {forms}"
        )
    return TrainedWeights(checkpoint=read_checkpoint(Path(written)))


def _random(rest: str, asked: Asked) -> RandomWeights:
    is_whole = re.fullmatch(r"\d{1,19}", rest)  # Python refuses thousands of digits
    number = int(rest) if is_whole else asked.seed
    if (rest and not is_whole) or not 0 <= number < SEED_LIMIT:
        said = rest if len(rest) <= 40 else f"{rest[:40]}…"
        raise UsageError(f"seed {said or asked.seed!r} must be a whole number from 0 to 2**63 - 1")
    return RandomWeights(seed=number)


def _own(rest: str, asked: Asked) -> OwnWeights:
    _refuse_rest("own", rest)
    if not asked.blueprint.has_own_weights:
        raise UsageError(
            f"{asked.blueprint.reference} has no weights of its own",
            hint="'own' is for a model that is a package.module:callable",
        )
    return OwnWeights()


def _embedded(rest: str, asked: Asked) -> TrainedWeights:
    row = EMBEDDED[rest]
    if row.variant != asked.blueprint.reference:
        raise WeightsError(
            f"embedded:{row.name} are weights of {row.variant}, not of {asked.blueprint.reference}",
            hint=f"use the model {row.variant}",
        )
    asset = resources.files("resdeploy") / "assets" / row.file
    with resources.as_file(asset) as path:
        return TrainedWeights(checkpoint=read_checkpoint(path), preprocess=row.preprocess)


def _pretrained(rest: str, asked: Asked) -> Weights:
    _refuse_rest("pretrained", rest)
    return weights_of(asked.blueprint.pretrained(), asked)


def _torchvision(rest: str, asked: Asked) -> TrainedWeights:
    published = asked.blueprint.published()
    reference = f"torchvision:{rest}"
    found = published.get(reference)
    if found is None or found.url is None:
        known = [name for name in published if name.startswith("torchvision:")]
        if not known:
            raise WeightsError(
                f"torchvision has no weights of {asked.blueprint.reference}",
                hint="name a file, or a repository that has some: hf:ORG/REPO",
            )
        kind = f"weights of {asked.blueprint.reference}"
        raise UnknownNameError(kind, reference, known)
    path = fetch_url(found.url, sha256=found.sha256, progress=asked.progress, offline=is_offline())
    return TrainedWeights(
        checkpoint=read_checkpoint(path), preprocess=found.preprocess, origin=found.url
    )


def _hub(rest: str, asked: Asked) -> TrainedWeights:
    if not rest:
        raise UsageError("hf: names no repository", hint="--weights hf:timm/resnet50.a1_in1k")
    fetched = fetch_hub(rest, progress=asked.progress)
    known = asked.blueprint.published().get(f"hf:{fetched.repo}")
    preprocess = fetched.preprocess or (known.preprocess if known else None)
    note = f"hf:{fetched.repo} does not say how images are prepared; the model's own way is taken"
    return TrainedWeights(
        checkpoint=read_checkpoint(fetched.path),
        preprocess=preprocess,
        origin=f"hf:{fetched.repo}@{fetched.revision}/{fetched.file}",
        notes=fetched.notes if preprocess else (*fetched.notes, note),
    )


def _refuse_rest(word: str, rest: str) -> None:
    if rest:
        raise UsageError(f"{word}:{rest} says too much", hint=f"--weights {word}")


def is_offline() -> bool:
    """Whether the environment says that only what is cached may be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in YES


EMBEDDED = Table(
    "embedded weights",
    (
        Embedded(
            name="digits",
            variant="resnet20",
            file="digits/resnet20.safetensors",
            preprocess=VARIANTS["resnet20"].preprocess,
        ),
    ),
)

SCHEMES = Table(
    "weights scheme",
    (
        Scheme(name="random", form="random[:SEED]", weights_of=_random),
        Scheme(
            name="embedded",
            form=" or ".join(f"embedded:{row.name}" for row in EMBEDDED),
            weights_of=_embedded,
        ),
        Scheme(name="pretrained", form="pretrained", weights_of=_pretrained),
        Scheme(name="torchvision", form="torchvision:TAG", weights_of=_torchvision),
        Scheme(name="hf", form="hf:ORG/REPO[@REV]", weights_of=_hub),
        Scheme(name="own", form="own", weights_of=_own),
    ),
)
