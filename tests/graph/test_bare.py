"""A graph without its large weights, and with them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.errors import GraphError
from resdeploy.graph.bare import LARGE, check_graph, put_back, without_weights
from resdeploy.graph.files import read_model, write_model
from resdeploy.pipeline.make_simplified import Simplification
from tests.graph import tools


def test_weights_leave_and_come_back(tmp_path: Path) -> None:
    path = tools.exported(tmp_path, "resnet18", 32)
    model = read_model(path)
    bare, weights = without_weights(model)
    write_model(bare, tmp_path / "bare.onnx")
    assert (tmp_path / "bare.onnx").stat().st_size < path.stat().st_size / 20
    onnx.checker.check_model(tmp_path / "bare.onnx")
    left = [value.const_value for value in bare.graph.initializers.values()]
    assert all(tensor is not None and tensor.nbytes < LARGE for tensor in left)
    assert [value.name for value in bare.graph.inputs] == ["input", *weights]
    put_back(bare, weights)
    assert [value.name for value in bare.graph.inputs] == ["input"]
    write_model(bare, tmp_path / "again.onnx")
    images = tools.noise(2, 3, 32, 32)
    np.testing.assert_array_equal(
        tools.answer(tmp_path / "again.onnx", images), tools.answer(path, images)
    )
    assert list(model.graph.initializers) == list(read_model(path).graph.initializers)


def test_a_weight_that_is_an_input_too_stays() -> None:
    """As in files before IR version 4: it is the value where nobody gives one."""
    proto = tools.proto("y = Add(x, w)", {"w": tools.noise(200, 200)},
                        inputs="float[200,200] x, float[200,200] w",
                        outputs="float[200,200] y")  # fmt: skip
    bare, weights = without_weights(ir.from_proto(proto))
    assert weights == {}
    assert list(bare.graph.initializers) == ["w"]


def test_a_weight_that_nobody_reads_any_more_does_not_come_back() -> None:
    proto = tools.proto("y = Add(x, w)", {"w": tools.noise(200, 200)},
                        inputs="float[200,200] x", outputs="float[200,200] y")  # fmt: skip
    bare, weights = without_weights(ir.from_proto(proto))
    (node,) = bare.graph
    node.replace_input_with(1, bare.graph.inputs[0])
    del bare.graph.inputs[1]
    put_back(bare, weights)
    assert dict(bare.graph.initializers) == {}


def test_a_graph_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    model = read_model(tools.exported(tmp_path, "resnet18", 32))
    check_graph(model)
    next(node for node in model.graph if node.op_type == "Conv").op_type = "Convolve"
    with pytest.raises(GraphError, match=r"not valid ONNX: .*Convolve"):
        check_graph(model)


def test_what_simplifiers_see_is_small(tmp_path: Path) -> None:
    """So that they are fast, need little memory, and take a network of any size."""
    model = read_model(tools.exported(tmp_path, "resnet18", 32))
    with Simplification(model, simplifiers=()) as work:
        sizes = sorted(file.stat().st_size for file in work.passed.parent.iterdir())
    assert sizes[0] < 1_000_000 < 40_000_000 < sizes[1]
