"""A Q/DQ graph, its float source and images in; better integers and biases for its layers out.

The images run through the float graph. Of what each layer reads there, some windows are kept,
rounded as the layer will see them; from these its weights are rounded, and what is left of the
mean error goes into its bias. Layers are corrected one by one, for the inputs of the float graph,
so that none has to wait for the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import scratch_folder
from resdeploy.contracts import Grid, Progress
from resdeploy.graph.files import write_model
from resdeploy.graph.layers import Layer, layers_of, set_weights, shift_bias
from resdeploy.graph.qdq.nodes import constant, label
from resdeploy.quantization.rounding import rounded_weights
from resdeploy.quantization.samples import ROWS, LayerSamples, Walk
from resdeploy.records import QuantizeOptions

Doubles = NDArray[np.float64]

# As many images give windows of different kinds; all layers of a resnet50 fill up from fewer.
IMAGES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """What a layer gets: its integers, and float64 [O] to add to its bias."""

    weight: NDArray[np.int8]
    shift: Doubles


Correction = Mapping[str, Corrected]


def correction_of(
    quantized: ir.Model,
    floats: ir.Model,
    images: Iterable[NDArray[Any]],
    count: int,
    *,
    progress: Progress,
    grid: Grid,
    how: QuantizeOptions,
    limit: int,
    threads: int,
) -> dict[str, Corrected]:
    """Better integers and biases for the layers of `quantized`, by name; neither graph changes.

    images: `count` of them, one by one, as the graphs take them.
    limit: the largest integer of a weight.
    """
    if not (how.round_weights or how.correct_bias):
        return {}
    layers = layers_of(quantized)
    nodes = {label(node): node for node in floats.graph}
    samples = {
        layer.name: LayerSamples(
            layer.input_scale, layer.input_zero, grid.dtype, _walk(layer), (0, index)
        )
        for index, layer in enumerate(layers)
    }
    read = {name: _read_by(nodes[name]) for name in samples}
    _sample(floats, images, count, samples, read, threads=threads)
    found = {}
    for layer in progress(layers, "rounding weights", len(layers)):
        exact = constant(nodes[layer.name].inputs[1])
        assert exact is not None  # it has integers now
        rows = samples.pop(layer.name)  # memory goes as layers are done
        found[layer.name] = _corrected(layer, exact, rows, how, limit)
    return found


def _walk(layer: Layer) -> Walk | None:
    window = layer.window
    if window is None:
        return None
    return Walk(
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        auto_pad=window.auto_pad,
    )


def _read_by(node: ir.Node) -> str:
    assert node.inputs[0] is not None  # a layer reads an image
    return node.inputs[0].name or ""


def _sample(
    floats: ir.Model,
    images: Iterable[NDArray[Any]],
    count: int,
    samples: Mapping[str, LayerSamples],
    read: Mapping[str, str],
    *,
    threads: int,
) -> None:
    """Run images through the float graph, and let each layer keep what it wants of them."""
    wanted = -(-ROWS // max(count, 1))
    graph = floats.clone()
    inputs = {value.name for value in graph.graph.inputs}
    made = {value.name: value for node in graph.graph for value in node.outputs}
    own = {value.name for value in graph.graph.outputs}
    graph.graph.outputs.extend(
        made[name] for name in dict.fromkeys(read.values()) if name not in inputs | own
    )
    with scratch_folder() as folder:
        path = folder / "sampled.onnx"
        write_model(graph, path)
        del graph
        with runtimes.OrtRunner(path, threads=threads) as runner:
            for image in images:
                seen = {**runner.run_all(image), **dict.fromkeys(inputs, image)}
                for name, kept in samples.items():
                    kept.add(seen[read[name]], wanted)


def _corrected(
    layer: Layer,
    exact: NDArray[np.float32],
    samples: LayerSamples,
    how: QuantizeOptions,
    limit: int,
) -> Corrected:
    flat = exact.reshape(len(exact), -1).astype(np.float64)
    weight = layer.weight.reshape(flat.shape)
    columns = flat.shape[1]
    outputs = len(flat) // layer.group
    before, after = samples.means()
    shift = np.zeros(len(flat))
    integers = weight.copy()
    for group in range(layer.group):
        own = slice(group * outputs, (group + 1) * outputs)
        part = slice(group * columns, (group + 1) * columns)
        scale = layer.weight_scale[own]
        if how.round_weights:
            moments = samples.moments(part)
            integers[own] = rounded_weights(flat[own], scale, moments, samples.count, limit)
        if how.correct_bias and layer.has_bias:
            got = (integers[own] * scale[:, None]) @ after[part]
            shift[own] = flat[own] @ before[part] - got
    return Corrected(weight=integers.reshape(layer.weight.shape), shift=shift)


def apply_correction(quantized: ir.Model, correction: Correction) -> None:
    """Give the layers of a Q/DQ graph what was found for them, in place."""
    for layer in layers_of(quantized):
        found = correction.get(layer.name)
        if found is not None:
            set_weights(layer, found.weight)
            shift_bias(layer, found.shift)
    common.RemoveUnusedNodesPass()(quantized)  # biases that were replaced
