"""An ONNX file in, a TensorRT engine out; an engine in, a Runner out.

Two libraries of NVIDIA's do both by nearly the same calls: TensorRT, and TensorRT-RTX, which
compiles without a GPU. Each is a row of `BACKENDS`. Precision is a property of the ONNX file:
networks are strongly typed, and nothing here sets it.

Source: docs.nvidia.com/deeplearning/tensorrt and .../tensorrt-rtx; what of it was tried is told
where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, has_module, lazy

ENGINE = "engine"  # the format's name
SUFFIX = ".engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Who compiles engines and runs them. `module` is imported for it, `extra` installs it.

    runtime: the row of RUNTIMES that runs them. oldest: the first version that will do, and why.
    needs_gpu: whether it compiles on the GPU that the engine is for, and on no other machine.
    capabilities: the compute capabilities that it compiles for elsewhere.
    timing_cache, hardware, version_compatible, refit: whether it has what is called so.
    """

    name: str
    module: str
    extra: str
    runtime: str
    oldest: tuple[int, ...]
    why_oldest: str
    needs_gpu: bool
    capabilities: tuple[str, ...] = ()
    timing_cache: bool = False
    hardware: bool = False
    version_compatible: bool = False
    refit: bool = False

    def is_installed(self) -> bool:
        """Whether its module can be imported; nothing is imported to find out."""
        return has_module(self.module)

    def runs_on(self, capability: str) -> bool:
        """Whether its engines run on a GPU of this compute capability, if they are built for it."""
        return not self.capabilities or is_among(capability, self.capabilities)


def is_among(capability: str, known: tuple[str, ...]) -> bool:
    """Whether a compute capability is a known one, or later than the last of them."""
    return capability in known or numbers_of(capability) > numbers_of(known[-1])


def numbers_of(capability: str) -> tuple[int, ...]:
    """A compute capability in numbers, which have an order."""
    return tuple(int(part) for part in capability.split("."))


BACKENDS: Table[Backend] = Table(
    "backend",
    (
        Backend(
            name="tensorrt",
            module="tensorrt",
            extra="gpu",
            runtime="tensorrt",
            oldest=(10, 12),
            why_oldest="strongly typed networks are complete from 10.12 on",
            needs_gpu=True,
            timing_cache=True,
            hardware=True,
            version_compatible=True,
            refit=True,
        ),
        Backend(
            name="rtx",
            module="tensorrt_rtx",
            extra="rtx",
            runtime="tensorrt-rtx",
            oldest=(1, 1),
            why_oldest="earlier ones do not compile without a GPU",
            needs_gpu=False,
            # The members of its ComputeCapability; H100, H200 and B200 are not among them.
            capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
        ),
    ),
)

_PUBLIC = {
    "CompilerChild": "resdeploy.engines.compiler:CompilerChild",
    "engine_checks": "resdeploy.engines.precision:engine_checks",
    "plan_version": "resdeploy.engines.header:plan_version",
}

__all__ = ["BACKENDS", "ENGINE", "SUFFIX", "Backend", *_PUBLIC]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
