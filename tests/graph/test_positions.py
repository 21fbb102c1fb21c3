"""Where pairs for TensorRT stand, against the vendor's tool on the same architectures.

tests/golden/modelopt_qdq.json.gz holds the float graphs of timm's models and the inputs that
Model-Optimizer quantizes. The nodes of two exports are matched by what they compute from what:
a node's `Form` is its operator, its weights' shape, and the forms of its inputs.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir
import pytest

from resdeploy.graph.files import read_model
from resdeploy.graph.qdq.editor import observed_tensors, quantize
from resdeploy.graph.qdq.tensorrt import RULES
from resdeploy.records import TensorRange
from tests.conftest import ROOT
from tests.graph import tools

GOLDEN = json.loads(gzip.decompress((ROOT / "tests/golden/modelopt_qdq.json.gz").read_bytes()))

# Operators that only give a tensor another shape, or take a part of it: a pair in front of
# one and a pair behind it are the same pair.
VIEWS = ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")

# Different operators for one thing. Theirs averages with ReduceMean where no module pools.
SAME = {"ReduceMean": "Pool", "GlobalAveragePool": "Pool", "ReduceSum": "Sum"}

Form: TypeAlias = int
Difference: TypeAlias = Counter[tuple[str, str, str]]


class Forms:
    """Numbers for forms: equal for nodes that compute the same thing from the same things."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Form] = {}
        self.operators: list[str] = []

    def of(self, operator: str, inputs: Iterable[Form], shape: Any = None) -> Form:
        forms = tuple(inputs)
        if operator == "Add" and len(set(forms)) == 1:
            operator, forms = "Sum", forms[:1]  # over the splits of one tensor
        key = (SAME.get(operator, operator), forms, shape)
        if key not in self._known:
            self._known[key] = len(self.operators)
            self.operators.append(key[0])
        return self._known[key]


@dataclass(frozen=True)
class Read:
    """A node reads a tensor."""

    reader: Form
    read: Form


def theirs(name: str, forms: Forms) -> set[Read]:
    """The quantized inputs of the vendor's graph."""
    graph = GOLDEN["models"][name]
    made: dict[Any, Form] = {"input": forms.of("input", ())}
    sources: list[list[Form]] = []
    for index, (operator, producers, *convolution) in enumerate(graph["nodes"]):
        read = [made[producer] for producer in producers]
        sources.append(read)
        shape = None
        if convolution:
            facts = convolution[0]
            shape = (tuple(facts["w"]), facts["group"], tuple(facts["stride"]))
        made[index] = read[0] if operator in VIEWS else forms.of(operator, read, shape)
    return {Read(made[node], sources[node][index]) for node, index in graph["quantized"]}


def ours(graph: ir.Graph, forms: Forms) -> set[Read]:
    """The quantized inputs of our graph."""
    made: dict[ir.Value, Form] = {graph.inputs[0]: forms.of("input", ())}
    rounded: set[ir.Value] = set()
    found = set()
    for node in graph:
        read = [value for value in node.inputs if value in made]
        if not read:
            continue  # arithmetic on shapes, and weights
        source = read[0]
        if node.op_type in VIEWS or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            made[node.outputs[0]] = made[source]
            if node.op_type == "DequantizeLinear" or source in rounded:
                rounded.add(node.outputs[0])
            continue
        if node.op_type == "Shape":
            continue
        form = forms.of(node.op_type, (made[value] for value in read), convolution_of(node))
        made[node.outputs[0]] = form
        found |= {Read(form, made[value]) for value in read if value in rounded}
    return found


def convolution_of(node: ir.Node) -> Any:
    if node.op_type != "Conv":
        return None
    reader = node.inputs[1].producer()
    weight = node.inputs[1] if reader is None else reader.inputs[0]
    strides = node.attributes.get_ints("strides", (1, 1))
    return (tuple(weight.shape.numpy()), node.attributes.get_int("group", 1), tuple(strides))


# (who quantizes, operator, operator whose output it reads): how often, and the reason.
DEVIATIONS: Mapping[str, Mapping[tuple[str, str, str], tuple[int, str]]] = {
    "resnet18": {},
    "resnet50": {},
    "resnext50_32x4d": {},
    "resnetv2_50": {
        ("theirs", "Conv", "Pool"): (
            1,
            "the classifier, a convolution of one pixel: it stays float as the Gemm of the others "
            "does, which their tool knows for a product of a matrix and a vector",
        ),
    },
    "resnest50d": {
        ("theirs", "Conv", "Pool"): (16, "squeeze, on one pixel: a matrix times a vector"),
        ("theirs", "Conv", "Relu"): (16, "excitation, on one pixel: a matrix times a vector"),
        ("ours", "Pool", "Sum"): (
            16,
            "the mean over the image is a GlobalAveragePool in our graph and quantized as any, "
            "and a ReduceMean in theirs, which their tool does not quantize",
        ),
    },
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_pairs_stand_where_the_vendors_tool_puts_them(name: str, tmp_path: Path) -> None:
    model = read_model(tools.simplified(tmp_path, name, 32))
    ranges = {item: TensorRange(min=-1, max=1, count=1) for item in observed_tensors(model, RULES)}
    quantize(model, ranges, RULES, weight_bits=8)
    forms = Forms()
    golden, found = theirs(name, forms), ours(model.graph, forms)
    assert len(golden) == len(GOLDEN["models"][name]["quantized"])  # no two inputs look alike

    def named(who: str, reads: set[Read]) -> Difference:
        operators = forms.operators
        return Counter((who, operators[item.reader], operators[item.read]) for item in reads)

    difference = named("theirs", golden - found) + named("ours", found - golden)
    expected = {key: count for key, (count, _) in DEVIATIONS[name].items()}
    assert dict(difference) == expected
