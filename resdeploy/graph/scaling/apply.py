"""A float graph and factors in; the same graph with its channels divided by them out."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import constant, label
from resdeploy.graph.scaling.ties import Ids, Ties
from resdeploy.graph.writer import Writer

Doubles = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)


def factors_of(ties: Ties, factors: Doubles) -> dict[str, Doubles]:
    """What the channels of each tensor are divided by: float64 [C], where it is not 1."""
    found = {name: _chosen(ids, factors) for name, ids in ties.groups.items()}
    return {name: row for name, row in found.items() if (row != 1).any()}


def _chosen(ids: Ids, factors: Doubles) -> Doubles:
    ones = np.append(factors, 1.0)  # -1 is the last
    chosen: Doubles = ones[ids]
    return chosen


def scale_channels(model: ir.Model, ties: Ties, factors: Doubles) -> None:
    """Put factors float64 [ties.factors] into the layers of `model`, in place."""
    writer = Writer(model.graph)
    for node in ties.layers:
        taken, put = ties.of(node.inputs[0]), ties.of(node.outputs[0])
        assert taken is not None  # it would be no layer otherwise
        assert put is not None
        back, divisor = _chosen(taken, factors), _chosen(put, factors)
        if (back == 1).all() and (divisor == 1).all():
            continue
        if node.op_type == "BatchNormalization":
            _scale_norm(writer, node, back, divisor)
        else:
            scale_weights(writer, node, back, divisor)


def _replace(
    writer: Writer, node: ir.Node, index: int, what: str, values: NDArray[np.floating]
) -> None:
    """Give a node a constant of its own: other nodes may read the old one."""
    name = f"{label(node)}_{what}_scaled"
    node.replace_input_with(index, writer.constant(name, values.astype(np.float32)))


def scale_weights(writer: Writer, node: ir.Node, back: Doubles, divisor: Doubles) -> None:
    """Multiply what a Conv or Gemm reads by float64 [in], and divide what it gives by [out]."""
    weight = constant(node.inputs[1])
    assert weight is not None  # the rules said so
    columns = _by_output(back, weight.shape[0], node.attributes.get_int("group", 1))
    shape = (*columns.shape, *(1 for _ in weight.shape[2:]))
    rows = divisor.reshape(-1, *(1 for _ in weight.shape[1:]))
    _replace(writer, node, 1, "weight", weight * columns.reshape(shape) / rows)
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        _replace(writer, node, 2, "bias", bias / divisor)


def _by_output(values: NDArray[T], outputs: int, group: int) -> NDArray[T]:
    """Values of the input channels [C] for each output channel: [outputs, C / group]."""
    parts = values.reshape(group, -1)
    rows: NDArray[T] = np.repeat(parts, outputs // group, axis=0)
    return rows


def _scale_norm(writer: Writer, node: ir.Node, back: Doubles, divisor: Doubles) -> None:
    """Y = γ (x − μ) / σ + β: with x / s for x, μ / s for μ and γ · s for γ."""
    scale, bias, mean = (constant(value) for value in node.inputs[1:4])
    assert scale is not None  # the rules said so
    assert bias is not None
    assert mean is not None
    _replace(writer, node, 1, "scale", scale * back / divisor)
    _replace(writer, node, 2, "bias", bias / divisor)
    _replace(writer, node, 3, "mean", mean / back)
