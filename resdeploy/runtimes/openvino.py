"""An ONNX file in, OpenVINO's answers on the CPU out.

There is no mode that runs a graph as it is written: OpenVINO always folds Q/DQ pairs into the
operators between them.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from resdeploy.errors import GraphError

_DEVICE = "CPU"

# As OpenVINO calls its layers that multiply and add, and the types that they do it in.
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_INTEGERS = {"u8", "i8"}


def _options(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Else a float32 file is computed in bfloat16 where the CPU has instructions for it:
        # resnet50's logits were off by 0.03 instead of 1e-5.
        "INFERENCE_PRECISION_HINT": "f32",
        # Else every compiled model ties its threads to cores from the first one on, and two that
        # run at once share a core: two streams of resnet50 took 120 ms each, one alone 56.
        "ENABLE_CPU_PINNING": False,
    }


def _compiled(path: Path, threads: int) -> Any:
    """The model, for any batch size unless the file has one: it then takes 4 to 7 % less time."""
    core = ov.Core()
    try:
        return core.compile_model(core.read_model(path), _DEVICE, _options(threads))
    except RuntimeError as error:
        raise GraphError(
            f"OpenVINO {ov.__version__} cannot load {path}: {_reason(error)}",
            hint="the file is damaged, or uses operators this version does not have",
        ) from error


def _reason(error: RuntimeError) -> str:
    """The last line of a message, which opens with source files and ends with what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].lstrip("- ") if lines else type(error).__name__


class OpenVinoRunner:
    """One compiled model on the CPU; the only input is the images, the first output the logits.

    Its threads do not spin after a run, so that whoever is timed next has the cores.

    Raises:
        GraphError: the file cannot be loaded, or a run fails.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self.path = path
        self.threads = threads

    def __enter__(self) -> Self:
        compiled = _compiled(self.path, self.threads)
        self._dtype = np.dtype(compiled.input(0).get_element_type().to_dtype())
        self._request = compiled.create_infer_request()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._request

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Answers [N, classes] for images as the file takes them, float32 [N, C, H, W] mostly."""
        if images.dtype != self._dtype:  # OpenVINO itself would convert them and say nothing
            raise self._failed(images, f"the file takes {self._dtype}, not {images.dtype}")
        try:
            answers: NDArray[np.float32] = self._request.infer([images], share_inputs=True)[0]
        except RuntimeError as error:
            raise self._failed(images, _reason(error)) from error
        return answers

    def _failed(self, images: NDArray[Any], reason: str) -> GraphError:
        return GraphError(
            f"OpenVINO failed on {self.path.name} with images {list(images.shape)}: {reason}",
            hint="compare the shape with what `resdeploy inspect` shows",
        )


def integer_layers(path: Path) -> tuple[str, ...]:
    """The names of the products that OpenVINO computes on integers on this CPU.

    A layer has those of all nodes that it was made of; a node's own may have a slash behind, and
    what was done to it.
    """
    names: list[str] = []
    for layer in _compiled(path, threads=1).get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if (
            facts["layerType"].astype(str) in _PRODUCTS
            and facts["runtimePrecision"].astype(str) in _INTEGERS
        ):
            names += facts["originalLayersNames"].astype(str).split(",")
    return tuple(names)
