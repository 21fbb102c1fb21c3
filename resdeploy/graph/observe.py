"""Float graph in, the same graph with what calibration wants to see as extra outputs out.

Of each tensor float32 [N, C, ...] four outputs, for each image and channel:

    low, high   the least and the greatest value                    [N, C]
    total       the sum, which is NaN or infinite where a value is  [N, C]
    sample      the values on a fixed grid of positions             [N, C, ...]

The reductions see every value. A histogram of every value would cost more than the inference,
so it is made of the sample: the same positions of every image, an odd step apart, since
strided layers have patterns of even period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from resdeploy.contracts import OBSERVED_PARTS
from resdeploy.errors import GraphError
from resdeploy.graph.shapes import shapes_of
from resdeploy.records import TensorFacts

# Of one tensor and one image, enough values for a smooth histogram over some hundred images, and
# of each channel enough to know it.
_SAMPLED_VALUES = 2**13
_SAMPLED_POSITIONS = 9

# NaN gets lost in ONNX Runtime's ReduceMin and ReduceMax, not in ReduceSum.
_REDUCTIONS = {"low": "ReduceMin", "high": "ReduceMax", "total": "ReduceSum"}

# Before these opsets the axes of a reduction are an attribute.
_AXES_ARE_INPUTS = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A tensor that is observed, and how many channels it has."""

    name: str
    channels: int


def with_observations(
    model: ir.Model, names: Sequence[str], images: TensorFacts
) -> tuple[Observed, ...]:
    """Give `model`, in place, four outputs `<name>.<part>` for each of `names`.

    images: the graph's input, with the size of the images where the graph leaves it open.

    Raises:
        GraphError: the graph has no such tensor, or its shape is not known.
    """
    shapes = shapes_of(model, images)
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values |= {value.name: value for node in graph for value in node.outputs}
    missing = [name for name in names if name not in values]
    if missing:
        raise GraphError(f"the graph has no tensor named {missing[0]!r}")
    # ONNX Runtime works backwards from the last node that nothing reads, so the observations of a
    # tensor are made right after it, while it is in the cache, only if they stand after those of
    # every later tensor. In the order of the tensors, all observations came last, and every tensor
    # was kept until then: calibrating resnet50 took 1.15 times as long.
    places = {name: place for place, name in enumerate(values)}
    writer = _Writer(graph)
    found = {
        name: writer.observe(values[name], shapes.get(name))
        for name in sorted(names, key=places.__getitem__, reverse=True)
    }
    return tuple(found[name] for name in names)


def _steps(sizes: Sequence[int], channels: int) -> list[int]:
    """The largest odd steps between positions that leave enough of them, one for each axis.

    They are alike, or those of the last axes one larger: sizes are small where channels are many,
    and the next step on every axis would leave too few.
    """
    wanted = min(max(_SAMPLED_VALUES // channels, _SAMPLED_POSITIONS), math.prod(sizes))
    steps = [1] * len(sizes)
    for step in range(3, max(sizes) + 1, 2):
        for axis in reversed(range(len(sizes))):
            longer = [*steps[:axis], step, *steps[axis + 1 :]]
            left = [-(-size // every) for size, every in zip(sizes, longer, strict=True)]
            if math.prod(left) < wanted:
                return steps
            steps = longer
    return steps


class _Writer:
    """Appends the outputs of one tensor after the other."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.opset = graph.opset_imports.get("", 0)
        self.constants: dict[tuple[int, ...], ir.Value] = {}  # of images there are few sizes

    def observe(self, value: ir.Value, shape: tuple[int, ...] | None) -> Observed:
        name = value.name or ""
        if shape is None:
            raise GraphError(
                f"the shape of the tensor {name!r} is not known, so it cannot be observed",
                hint="simplify the graph, or say how large images are: --size",
            )
        channels, sizes = shape[1], shape[2:]
        if not sizes:  # each image has one value per channel: there is nothing to reduce
            for part in OBSERVED_PARTS:
                self.output("Identity", [value], f"{name}.{part}")
            return Observed(name=name, channels=channels)
        axes = list(range(2, len(shape)))
        for part, operator in _REDUCTIONS.items():
            self.reduce(operator, value, axes, f"{name}.{part}")
        steps = _steps(sizes, channels)
        starts = [min(step // 2, size - 1) for step, size in zip(steps, sizes, strict=True)]
        limits = (starts, [2**31 - 1] * len(axes), axes, steps)
        inputs = [self.constant(f"{name}.sample.{index}", row) for index, row in enumerate(limits)]
        self.output("Slice", [value, *inputs], f"{name}.sample")
        return Observed(name=name, channels=channels)

    def reduce(self, operator: str, value: ir.Value, axes: list[int], name: str) -> None:
        flat = ir.AttrInt64("keepdims", 0)
        if self.opset >= _AXES_ARE_INPUTS[operator]:
            self.output(operator, [value, self.constant(f"{name}.axes", axes)], name, flat)
        else:
            self.output(operator, [value], name, flat, ir.AttrInt64s("axes", axes))

    def constant(self, name: str, numbers: Sequence[int]) -> ir.Value:
        """These numbers, under this name where no tensor before has needed them."""
        key = tuple(numbers)
        if key not in self.constants:
            tensor = ir.Tensor(np.array(numbers, np.int64), name=name)
            self.constants[key] = ir.val(name, const_value=tensor)
            self.graph.register_initializer(self.constants[key])
        return self.constants[key]

    def output(
        self, operator: str, inputs: Sequence[ir.Value], name: str, *attributes: ir.Attr
    ) -> None:
        result = ir.val(name, dtype=ir.DataType.FLOAT)
        self.graph.append(ir.Node("", operator, inputs, attributes, outputs=[result]))
        self.graph.outputs.append(result)
