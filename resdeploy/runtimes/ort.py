"""An ONNX file in, ONNX Runtime's answers on the CPU out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from resdeploy.artifact import scratch_folder
from resdeploy.errors import GraphError
from resdeploy.runtimes.memory import return_memory


class Optimization(StrEnum):
    """How much of the graph ONNX Runtime may rewrite.

    NONE runs every node as it is written: Q/DQ pairs round, everything between them is
    float. That is what the graph says, without the kernels of this CPU.
    """

    ALL = "all"
    NONE = "none"


# Source: ONNX Runtime 1.31, docs/ContribOperators.md; ConvInteger and MatMulInteger are ONNX's.
_ON_INTEGERS = {
    "QLinearConv",
    "QLinearConvTranspose",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}

_LEVELS = {
    Optimization.ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    Optimization.NONE: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def _options(threads: int, optimization: Optimization) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[optimization]
    # Its threads spin while they wait for work. After a run they must stop, or they take the
    # cores from whoever runs next: measured, they make an eager resnet50 1.8 times slower.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # warnings about saved graphs and shapes are not for users
    return options


def _session(path: Path, options: Any) -> Any:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base below Exception
        raise GraphError(
            f"ONNX Runtime {ort.__version__} cannot load {path}: {_first_line(error)}",
            hint="the file is damaged, or uses operators this version does not have",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class OrtRunner:
    """One session on the CPU; the only input is the images, the first output the logits.

    Raises:
        GraphError: the file cannot be loaded, or a run fails.
    """

    def __init__(
        self, path: Path, *, threads: int, optimization: Optimization = Optimization.ALL
    ) -> None:
        self.path = path
        self.threads = threads
        self.optimization = optimization

    def __enter__(self) -> Self:
        self._session = _session(self.path, _options(self.threads, self.optimization))
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._session
        return_memory()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Answers [N, classes] for images as the file takes them, float32 [N, C, H, W] mostly."""
        logits: NDArray[np.float32] = self._run([self._outputs[0]], images)[0]
        return logits

    def run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every output of the graph by its name."""
        return dict(zip(self._outputs, self._run(self._outputs, images), strict=True))

    def run_fed(
        self, images: NDArray[Any], others: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Every output by its name, of a graph that takes `others` beside the images."""
        taken = [value.name for value in self._session.get_inputs()]
        feeds = {name: others.get(name, images) for name in taken}
        return dict(zip(self._outputs, self._run_on(self._outputs, feeds, images), strict=True))

    def _run(self, outputs: list[str], images: NDArray[Any]) -> list[Any]:
        return self._run_on(outputs, {self._input: images}, images)

    def _run_on(
        self, outputs: list[str], feeds: Mapping[str, NDArray[Any]], images: NDArray[Any]
    ) -> list[Any]:
        try:
            answers: list[Any] = self._session.run(outputs, dict(feeds))
        except Exception as error:  # its exceptions have no common base below Exception
            raise GraphError(
                f"ONNX Runtime failed on {self.path.name} with images "
                f"{list(images.shape)}: {_first_line(error)}",
                hint="compare the shape with what `resdeploy inspect` shows",
            ) from error
        return answers


def exact_runner(path: Path, *, threads: int) -> OrtRunner:
    """A Runner of what the graph says: no kernel of this CPU fuses its Q/DQ pairs."""
    return OrtRunner(path, threads=threads, optimization=Optimization.NONE)


def optimized_operators(path: Path) -> Counter[str]:
    """How many nodes of each operator ONNX Runtime makes of a graph on this CPU."""
    return Counter(node.op_type for node in _optimized_nodes(path))


def integer_layers(path: Path) -> tuple[str, ...]:
    """The names of the products that ONNX Runtime computes on integers on this CPU.

    A node that was changed for the layout of its tensors has `_token_` and a number behind.
    """
    return tuple(node.name for node in _optimized_nodes(path) if node.op_type in _ON_INTEGERS)


def _optimized_nodes(path: Path) -> list[onnx.NodeProto]:
    with scratch_folder() as folder:
        saved = folder / "optimized.onnx"
        options = _options(1, Optimization.ALL)
        options.optimized_model_filepath = str(saved)
        _session(path, options)
        return list(onnx.load(saved, load_external_data=False).graph.node)
