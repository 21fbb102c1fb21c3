"""The inspector's JSON of TensorRT 10 and of 11: the same layers, and nothing guessed."""

from __future__ import annotations

import json

import pytest

from resdeploy.engines.inspector import layers_from, with_macs
from resdeploy.engines.precision import engine_checks
from resdeploy.records import Compiled, EngineLayer, GraphSummary, TensorFacts

TEN = {
    "Layers": [
        {
            "Name": "conv1 + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row "
                        "major Int8 format"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}],
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
        }
    ],
    "Bindings": ["x", "y"],
}  # fmt: skip
ELEVEN = {
    "Layers": [
        {
            "Name": "conv1 + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format": "Row major linear", "Datatype": "Int8"}],
            "Outputs": [{"Name": "y", "Format": "Row major linear", "Datatype": "Half"}],
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
        }
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "INPUT", "DataType": "FLOAT"}],
}


@pytest.mark.parametrize("found", [TEN, ELEVEN], ids=["10", "11"])
def test_both_versions_give_the_same_layer(found: dict[str, object]) -> None:
    (layer,) = layers_from(json.dumps(found))
    assert (layer.name, layer.kind) == ("conv1 + relu", "CaskConvolution")
    assert (layer.inputs, layer.outputs) == (("int8",), ("fp16",))
    assert layer.tactic.startswith("sm80")


def test_layers_carry_the_macs_of_the_nodes_that_they_name() -> None:
    """Two nodes that became one, a copy of none, and a layer that does not say."""
    layers = layers_from(
        json.dumps(
            {
                "Layers": [
                    {"Name": "a", "Metadata": "[ONNX Layer: /conv1/Conv]\x1e[ONNX Layer: /relu]"},
                    {"Name": "b", "LayerType": "Reformat", "Metadata": ""},
                    {"Name": "c", "Metadata": ""},
                    {"Name": "d", "Metadata": "[ONNX Layer: /fc/Gemm]"},
                ]
            }
        )
    )
    assert layers[0].nodes == ("/conv1/Conv", "/relu")
    found = with_macs(layers, {"/conv1/Conv": 1000, "/relu": 0, "/fc/Gemm": None})
    assert [layer.macs for layer in found] == [1000, 0, None, None]


def test_what_is_not_said_is_empty() -> None:
    unknown = {"Layers": ["a name", {"Name": "b", "Inputs": [{"Format/Datatype": "Odd format"}]}]}
    first, second = layers_from(json.dumps(unknown))
    assert first == EngineLayer(name="a name", kind="")
    assert second.inputs == ("",)
    assert layers_from("{}") == ()


# --- the precision that was obtained ------------------------------------------------------

PARAMS = 25_000_000


# Of the weights' elements, a tenth is the classifier's.
BYTES = {
    "fp32": {"float": 4 * PARAMS},
    "fp16": {"float16": 2 * PARAMS},
    "int8": {"int8": PARAMS * 9 // 10, "float": 4 * PARAMS // 10},
    "int8-fp16": {"int8": PARAMS * 9 // 10, "float16": 2 * PARAMS // 10},
}


def graph(dtype: str = "float", precision: str = "fp32") -> GraphSummary:
    port = TensorFacts(name="x", dtype=dtype, shape=("batch", 3, 224, 224))
    return GraphSummary(
        opset=20, inputs=(port,), outputs=(port,), nodes=1, operators={}, params=PARAMS,
        bytes_by_dtype=BYTES[precision], precision=precision,
    )  # fmt: skip


def compiled(types: dict[str, int], layers: tuple[EngineLayer, ...] | None = None) -> Compiled:
    port = TensorFacts(name="x", dtype="float", shape=("batch", 3, 224, 224))
    return Compiled(version="10.12.0", inputs=(port,), outputs=(port,), types=types, layers=layers)


def failed(asked: str, found: Compiled, plan_bytes: int) -> list[str]:
    checks = engine_checks(asked, graph(precision=asked), found, plan_bytes)
    return [check.name for check in checks if not check.passed]


INT8 = {"int8": 50, "half": 70, "float": 2}


def test_an_int8_engine_passes() -> None:
    layer = EngineLayer(name="c", kind="CaskConvolution", inputs=("int8",), outputs=("int8",))
    assert failed("int8-fp16", compiled(INT8, (layer,)), PARAMS + 3_000_000) == []


def test_an_engine_that_is_asked_for_in_int8_and_holds_floats_fails_by_its_size() -> None:
    assert failed("int8-fp16", compiled(INT8), 4 * PARAMS) == ["size"]
    assert failed("int8-fp16", compiled(INT8), 2 * PARAMS) == ["size"]
    assert failed("fp16", compiled({"half": 9}), 4 * PARAMS) == ["size"]


def test_an_engine_whose_layers_are_float_fails_by_them() -> None:
    layer = EngineLayer(name="c", kind="CaskConvolution", inputs=("fp32",), outputs=("fp32",))
    assert failed("int8-fp16", compiled(INT8, (layer,)), PARAMS) == ["layer-types"]
    both = (layer, EngineLayer(name="d", kind="CaskConvolution", inputs=("int8",)))
    assert failed("int8-fp16", compiled(INT8, both), PARAMS) == []


@pytest.mark.parametrize(
    "layer",
    [
        EngineLayer(name="c", kind="CaskConvolution", inputs=("",)),
        EngineLayer(name="{ForeignNode[a...z]}", kind="Myelin", inputs=("fp32",)),
        EngineLayer(name="a name alone", kind=""),
    ],
    ids=["a type that is not read", "one that stands for many", "no detail"],
)
def test_layers_that_do_not_show_their_type_say_nothing(layer: EngineLayer) -> None:
    checks = engine_checks("int8-fp16", graph(precision="int8-fp16"), compiled(INT8, (layer,)), 30)
    assert "layer-types" not in {check.name for check in checks}


def test_a_network_without_the_type_fails() -> None:
    assert failed("int8", compiled({"float": 100}), PARAMS) == ["network-types"]
    assert failed("fp16", compiled({"float": 100}), 2 * PARAMS) == ["network-types"]


def test_inputs_that_changed_their_type_fail() -> None:
    checks = engine_checks("fp32", graph("float16"), compiled({"float": 1}), 4 * PARAMS)
    assert [check.name for check in checks if not check.passed] == ["inputs-outputs"]
