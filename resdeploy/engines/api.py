"""A backend in, its module out, with the names of it that we use, typed.

`Api` is the whole of TensorRT that resdeploy touches. All of it is in TensorRT 10.12 to 11.x and
in TensorRT-RTX unless a comment says otherwise; tests/engines holds it against a list of what each
version has.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from resdeploy.engines import Backend
from resdeploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    import tensorrt as trt

    class Api:
        """The names of TensorRT that are used here."""

        __version__: str
        Builder = trt.Builder
        BuilderFlag = trt.BuilderFlag
        DataType = trt.DataType
        Dims = trt.Dims
        HardwareCompatibilityLevel = trt.HardwareCompatibilityLevel
        ILogger = trt.ILogger
        IProgressMonitor = trt.IProgressMonitor
        LayerInformationFormat = trt.LayerInformationFormat
        MemoryPoolType = trt.MemoryPoolType
        NetworkDefinitionCreationFlag = trt.NetworkDefinitionCreationFlag
        IProfiler = trt.IProfiler
        OnnxParser = trt.OnnxParser
        OnnxParserRefitter = trt.OnnxParserRefitter
        ProfilingVerbosity = trt.ProfilingVerbosity
        Refitter = trt.Refitter
        Runtime = trt.Runtime
        TensorIOMode = trt.TensorIOMode

else:
    Api = object


def load_api(row: Backend) -> Api:
    """The module of a backend.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is too old, or its libraries cannot be loaded.
    """
    if not row.is_installed():
        raise MissingExtraError(row.module, row.extra, f"the backend {row.name}")
    try:
        module = importlib.import_module(row.module)
    except (ImportError, OSError) as error:  # a wheel whose libraries are elsewhere, or damaged
        raise EngineError(
            f"the package {row.module} is installed, but cannot be loaded: {error}",
            hint=f"install it again: pip install --force-reinstall 'resdeploy[{row.extra}]'",
        ) from error
    found = version_of(module.__version__)
    if found[: len(row.oldest)] < row.oldest:
        oldest = ".".join(map(str, row.oldest))
        raise EngineError(
            f"{row.module} is {module.__version__}, and {oldest} is the oldest that is supported: "
            f"{row.why_oldest}",
            hint=f"pip install --upgrade 'resdeploy[{row.extra}]'",
        )
    return cast(Api, module)


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of a version, up to the first part that is none."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def sizes_of(dims: trt.Dims) -> tuple[int, ...]:
    """The sizes of a shape; -1 is one that is open."""
    return tuple(int(dims[index]) for index in range(len(dims)))
