"""A Q/DQ graph in, its layers with integer weights out, and other integers put in.

What the emitters of `graph.qdq` make, whatever the target: the weights of a layer are an INT8
initializer behind DequantizeLinear, its image comes from DequantizeLinear, and its bias is float
or an INT32 initializer behind DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import constant, label, names_in, new_name

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a convolution walks over its image; a Gemm has none.

    auto_pad: "NOTSET", or how the operator works out its pads; `pads` are 0 then.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A Conv or Gemm on integers.

    weight: int8 [O, I / group, ...]; weight_scale: float64 [O]. input_scale, input_zero: of the
    image. window: None of a Gemm.
    """

    name: str
    node: ir.Node
    weight: NDArray[np.int8]
    weight_scale: Doubles
    input_scale: float
    input_zero: int
    group: int
    window: Window | None

    @property
    def has_bias(self) -> bool:
        """Whether there is something that a mean error can be taken out of."""
        return len(self.node.inputs) > 2 and self.node.inputs[2] is not None


def layers_of(model: ir.Model) -> tuple[Layer, ...]:
    """The layers with integer weights, in the order of the graph."""
    found = []
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        image, weight = (_dequantizer(value) for value in node.inputs[:2])
        integers = None if weight is None else constant(weight.inputs[0])
        if image is None or weight is None or integers is None or integers.dtype != np.int8:
            continue
        scale, zero_point = (constant(value) for value in image.inputs[1:3])
        weight_scale = constant(weight.inputs[1])
        assert scale is not None  # the emitters write constants
        assert zero_point is not None
        assert weight_scale is not None
        found.append(
            Layer(
                name=label(node),
                node=node,
                weight=integers,
                weight_scale=weight_scale.astype(np.float64),
                input_scale=float(scale),
                input_zero=int(zero_point),
                group=node.attributes.get_int("group", 1),
                window=_window(node, integers.shape[2:]),
            )
        )
    return tuple(found)


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _window(node: ir.Node, kernel: tuple[int, ...]) -> Window | None:
    if node.op_type == "Gemm":
        return None
    ones = (1,) * len(kernel)
    attributes = node.attributes
    return Window(
        kernel=kernel,
        strides=tuple(attributes.get_ints("strides", ones)),
        pads=tuple(attributes.get_ints("pads", (0,) * (2 * len(kernel)))),
        dilations=tuple(attributes.get_ints("dilations", ones)),
        auto_pad=attributes.get_string("auto_pad", "NOTSET"),
    )


def set_weights(layer: Layer, integers: NDArray[np.int8]) -> None:
    """Give a layer other integers, in place."""
    weight = _dequantizer(layer.node.inputs[1])
    assert weight is not None  # it would be no layer
    _set(weight.inputs[0], integers.reshape(layer.weight.shape))


def shift_bias(layer: Layer, shift: Doubles) -> None:
    """Add float64 [O] to the bias of a layer that has one, in place."""
    if not layer.has_bias:
        return
    value = layer.node.inputs[2]
    bias = _dequantizer(value)
    if bias is None:
        own = constant(value)
        assert own is not None  # the emitters quantize no layer with another bias
        graph = layer.node.graph
        assert isinstance(graph, ir.Graph)  # the node is of one
        name = new_name(f"{layer.name}_bias_corrected", names_in(graph))
        new = ir.val(name, const_value=ir.tensor((own + shift).astype(np.float32), name=name))
        graph.register_initializer(new)
        layer.node.replace_input_with(2, new)
        return
    integers, scale = constant(bias.inputs[0]), constant(bias.inputs[1])
    assert integers is not None  # the emitters write constants
    assert scale is not None
    limit = float(np.iinfo(np.int32).max)
    steps = np.clip(np.rint(integers + shift / scale), -limit, limit)
    _set(bias.inputs[0], steps.astype(np.int32))


def _set(value: ir.Value | None, numbers: NDArray[np.generic]) -> None:
    assert value is not None
    value.const_value = ir.tensor(numbers, name=value.name)
