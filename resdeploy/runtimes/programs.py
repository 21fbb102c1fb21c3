"""TorchScript and pt2 files in, PyTorch's answers on the CPU out."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.errors import ArtifactError, GraphError


class _ProgramRunner(ABC):
    """A program of PyTorch with `threads` threads, and afterwards as many as before.

    Raises:
        ArtifactError: the file cannot be loaded.
        GraphError: a run fails.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self.path = path
        self.threads = threads

    def __enter__(self) -> Self:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript's deprecation is in the sidecar
                self.program = self._load()
        except Exception as error:  # their errors have no common base
            raise ArtifactError(
                f"PyTorch {torch.__version__} cannot load {self.path}: {_first_line(error)}",
                hint="the file is damaged, or of a newer version of PyTorch",
            ) from error
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._threads_before)
        del self.program

    @abstractmethod
    def _load(self) -> Any:
        """The program in the file."""

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Answers [N, classes] for images as the file takes them, float32 [N, C, H, W] mostly."""
        try:
            with torch.inference_mode():
                logits: NDArray[np.float32] = self.program(torch.from_numpy(images)).numpy()
        except Exception as error:  # their errors have no common base
            raise GraphError(
                f"{self.path.name} failed on images {list(images.shape)}: {_first_line(error)}",
                hint="compare the shape with what `resdeploy inspect` shows",
            ) from error
        return logits


class TorchScriptRunner(_ProgramRunner):
    """A TorchScript file."""

    def _load(self) -> Any:
        return torch.jit.load(str(self.path), map_location="cpu")  # type: ignore[no-untyped-call]


class Pt2Runner(_ProgramRunner):
    """A file of torch.export."""

    def _load(self) -> Any:
        return torch.export.load(self.path).module()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
