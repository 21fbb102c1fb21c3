"""What each target says of Q/DQ graphs that it cannot run as they mean it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from resdeploy.graph import EMITTERS
from tests.graph import tools

PADDED = "pads=[1,1,1,1]"
BODY = f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u, b) t = Add(d, q)
    r = Relu(t) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, v)"""
WEIGHTS = {
    "w": tools.noise(16, 4, 3, 3, seed=1) / 6,
    "b": tools.noise(16, seed=2),
    "u": tools.noise(16, 16, 3, 3, seed=3) / 12,
    "v": tools.noise(5, 16, seed=8) / 4,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network for every target."""
    folder = tmp_path_factory.mktemp("good")
    source = folder / "float.onnx"
    onnx.save(tools.proto(BODY, WEIGHTS), source)
    images = tools.noise(4, 4, 8, 8)
    return {row.name: tools.quantized(source, images, target=row.name, bits=8) for row in EMITTERS}


def set_constant(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if tensor in node.output)


def reads_uint8(model: onnx.ModelProto) -> None:
    set_constant(model, "q_zero_point", np.uint8(0))


def names_no_type(model: onnx.ModelProto) -> None:
    """Without a zero point the integers are UINT8, which is ONNX's default."""
    del maker(model, "q_quantized").input[2]


def shifts_zero(model: onnx.ModelProto) -> None:
    set_constant(model, "q_zero_point", np.int8(3))


def has_scale(value: float) -> Callable[[onnx.ModelProto], None]:
    return lambda model: set_constant(model, "q_scale", np.float32(value))


def has_scales_per_channel(model: onnx.ModelProto) -> None:
    set_constant(model, "q_scale", np.full(16, 0.1, np.float32))
    set_constant(model, "q_zero_point", np.zeros(16, np.int8))


def has_one_weight_scale(model: onnx.ModelProto) -> None:
    set_constant(model, "d_weight_scale", np.float32(0.1))
    set_constant(model, "d_weight_zero_point", np.int8(0))


def has_unsigned_weights(model: onnx.ModelProto) -> None:
    set_constant(model, "d_weight_quantized", np.zeros((16, 16, 3, 3), np.uint8))
    set_constant(model, "d_weight_zero_point", np.full(16, 128, np.uint8))


def reads_with_another_scale(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2.5), "other"))
    maker(model, "q_dequantized").input[1] = "other"


def computes_scale(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["computed"])  # a value of the image
    model.graph.node.insert(0, node)
    for name in ("q_quantized", "q_dequantized"):
        maker(model, name).input[1] = "computed"


def has_integer_convolution(model: onnx.ModelProto) -> None:
    maker(model, "d").op_type = "QLinearConv"


def is_of_other_domain(model: onnx.ModelProto) -> None:
    maker(model, "q_quantized").domain = "com.microsoft"


def reads_float(tensor: str, index: int, source: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        maker(model, tensor).input[index] = source

    return change


def pair_inside(model: onnx.ModelProto) -> None:
    """The pair of q, moved in front of the Relu that makes it."""
    for reader in ("d", "t"):
        inputs = maker(model, reader).input
        inputs[list(inputs).index("q_dequantized")] = "q"
    maker(model, "q_quantized").input[0] = "a"
    maker(model, "q").input[0] = "q_dequantized"


def quantizes_main_branch(model: onnx.ModelProto) -> None:
    maker(model, "t").input[0] = "d_dequantized"
    scale = ["q_scale", "q_zero_point"]
    at = next(i for i, node in enumerate(model.graph.node) if "t" in node.output)
    model.graph.node.insert(
        at, helper.make_node("DequantizeLinear", ["d_quantized", *scale], ["d_dequantized"])
    )
    model.graph.node.insert(at, helper.make_node("QuantizeLinear", ["d", *scale], ["d_quantized"]))


def averages_with_reduce_mean(model: onnx.ModelProto) -> None:
    node = maker(model, "p")
    node.op_type = "ReduceMean"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, -2]), "axes"))
    node.input.append("axes")


@dataclass(frozen=True)
class Fault:
    target: str
    change: Callable[[onnx.ModelProto], None]
    says: str
    node: str


FAULTS = {
    "uint8": Fault("tensorrt", reads_uint8, "UINT8", "q_quantized"),
    "uint8 by default": Fault("tensorrt", names_no_type, "UINT8", "q_quantized"),
    "zero point": Fault("tensorrt", shifts_zero, "zero point that is not 0", "q_quantized"),
    "scale 0": Fault("tensorrt", has_scale(0), "scale that is not above 0", "q_quantized"),
    "scale nan": Fault("tensorrt", has_scale(np.nan), "scale that is not above 0", "q_quantized"),
    "negative scale": Fault("ort-cpu", has_scale(-1), "scale that is not above 0", "q_quantized"),
    "computed scale": Fault("tensorrt", computes_scale, "is computed", "q_quantized"),
    "scales per channel": Fault("tensorrt", has_scales_per_channel, "per channel", "q_quantized"),
    "one weight scale": Fault("tensorrt", has_one_weight_scale, "of all channels", "d"),
    "unsigned weights": Fault("ort-cpu", has_unsigned_weights, "weights with a zero", "d"),
    "another scale": Fault("tensorrt", reads_with_another_scale, "another scale", "q_dequantized"),
    "integer operator": Fault("tensorrt", has_integer_convolution, "on integers", "d"),
    "domain": Fault("tensorrt", is_of_other_domain, "another domain", "q_quantized"),
    "float image": Fault("tensorrt", reads_float("d", 0, "q"), "a float image", "d"),
    "inside": Fault("tensorrt", pair_inside, "would be one kernel", "q_quantized"),
    "two branches": Fault("tensorrt", quantizes_main_branch, "splits it from the Conv", "t"),
    "no branch": Fault("tensorrt", reads_float("t", 1, "q"), "the shortcut is float", "t"),
    "mean": Fault("tensorrt", averages_with_reduce_mean, "ReduceMean", "p"),
    "float branch": Fault("ort-cpu", reads_float("t", 0, "d"), "a float branch", "t"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_node(fault: Fault, good: dict[str, Path]) -> None:
    assert tools.problems(good[fault.target], fault.target) == ()
    model = onnx.load(good[fault.target])
    fault.change(model)
    found = tools.problems_of(model, fault.target)
    (said,) = [problem for problem in found if fault.says in problem]
    assert f"'{fault.node}'" in said


def test_graphs_for_one_target_are_bad_for_another(good: dict[str, Path]) -> None:
    said = {
        (made, judge.name): " ".join(tools.problems(path, judge.name))
        for made, path in good.items()
        for judge in EMITTERS
    }
    assert "UINT8" in said["ort-cpu", "tensorrt"]
    assert "INT32 bias" in said["ort-cpu", "tensorrt"]
    assert "INT8 behind a Relu" in said["tensorrt", "ort-cpu"]
    assert "a float branch" in said["tensorrt", "ort-cpu"]
    assert "saturate on CPUs without VNNI" in said["tensorrt", "openvino"]


def test_a_float_graph_has_no_pairs() -> None:
    for row in EMITTERS:
        found = tools.problems_of(tools.proto(BODY, WEIGHTS), row.name)
        assert found == ("the graph has no QuantizeLinear and no DequantizeLinear",)
