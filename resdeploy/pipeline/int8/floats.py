"""A float graph and its calibration table in; one of the same answers that loses less in INT8.

The images are put onto the grid of their pixels, and channels of very different range are evened
out; each of the two can be left out. What a target wants first is done to the graph, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy.artifact import Artifact
from resdeploy.contracts import Grid
from resdeploy.graph import Emitter
from resdeploy.graph.files import read_model
from resdeploy.graph.qdq.editor import observed_tensors, rules_of
from resdeploy.graph.qdq.nodes import constant
from resdeploy.graph.scaling.apply import factors_of, scale_channels
from resdeploy.graph.scaling.pixel_grid import Aligned, align_to_pixels
from resdeploy.graph.scaling.ranged import Ranged
from resdeploy.graph.scaling.record import write_factors
from resdeploy.graph.scaling.ties import Ties, ties_of
from resdeploy.graph.shapes import shapes_of
from resdeploy.pipeline.feeding import image_facts
from resdeploy.quantization import METHODS
from resdeploy.quantization.equalize import ROUNDED_WELL, Rounded, Weighted, equalizing_factors
from resdeploy.quantization.histogram import histogram_of
from resdeploy.quantization.statistics import TensorStatistics
from resdeploy.quantization.table import CalibrationTable
from resdeploy.records import Manifest, QuantizeOptions, TensorRange
from resdeploy.table import load_target

Doubles = NDArray[np.float64]
Gains = Mapping[str, Doubles]

_NONE = np.array([-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Floats:
    """A float graph, the range of each tensor that its target rounds, and what was done.

    pixels: the tensor that is on the grid of the pixels, if one is. left_out: what was to be done
    and cannot, and why.
    """

    model: ir.Model
    ranges: dict[str, TensorRange]
    pixels: str | None
    steps: tuple[str, ...]
    left_out: tuple[str, ...]


def floats_of(
    source: Artifact,
    manifest: Manifest,
    table: CalibrationTable,
    emitter: Emitter,
    how: QuantizeOptions,
    limit: int,
    gains: Gains | str,
) -> Floats:
    """The graph to put Q/DQ pairs into.

    limit: the largest integer of a weight. gains: how much noise in each tensor matters, without
    which channels are not evened out; or why nobody knows.
    """
    model = read_model(source.path)
    names = observed_tensors(model, rules_of(emitter))
    factors: dict[str, Doubles] = {}
    steps, left_out = [], []
    if how.equalize and isinstance(gains, str):
        left_out.append(f"equalize: left out, {gains}")
    elif how.equalize and not isinstance(gains, str):
        factors = _equalized(model, manifest, table, emitter.grid, names, limit, how, gains)
        steps.append(f"equalize: {len(factors)} tensors")
    method = load_target(METHODS[how.method].target, extra="", why=f"the method {how.method}")
    ranges = {
        name: method(histogram_of(table.tensors[name], factors.get(name)), emitter.grid)
        for name in names
    }
    ranged = Ranged(
        model=model,
        image=image_facts(manifest),
        grid=emitter.grid,
        keep=how.keep,
        ranges=ranges,
        factors=factors,
    )
    done = [change(ranged) for change in rules_of(emitter).first]
    steps.extend(words for words in done if words is not None)
    write_factors(model, factors)
    aligned = _aligned(model, manifest, emitter) if how.pixel_grid else None
    if isinstance(aligned, str):
        left_out.append(f"pixel grid: left out, {aligned}")
    pixels = None
    if isinstance(aligned, Aligned):
        pixels = aligned.name
        ranges[pixels] = aligned.range
        steps.append(f"pixel grid: {pixels} holds pixels")
    common.RemoveUnusedNodesPass()(model)  # weights that others have taken the place of
    return Floats(
        model=model, ranges=ranges, pixels=pixels, steps=tuple(steps), left_out=tuple(left_out)
    )


def _aligned(model: ir.Model, manifest: Manifest, emitter: Emitter) -> Aligned | str:
    if manifest.preprocess is None:
        return "nobody says how images are preprocessed"
    return align_to_pixels(
        model,
        manifest.preprocess,
        emitter.grid,
        rules_of(emitter).border,
        takes_pixels=manifest.interface.pixels,
    )


def _equalized(
    model: ir.Model,
    manifest: Manifest,
    table: CalibrationTable,
    grid: Grid,
    names: tuple[str, ...],
    limit: int,
    how: QuantizeOptions,
    gains: Gains,
) -> dict[str, Doubles]:
    """Even out channels, in place; what the channels of each tensor were divided by."""
    shapes = shapes_of(model, image_facts(manifest))
    ties = ties_of(model, shapes)
    view = _View(table=table.tensors, ties=ties, gains=gains, grid=grid, limit=limit)
    factors = equalizing_factors(
        [view.rounded(name) for name in names if view.has_factors(name)],
        view.layers(model),
        ties.factors,
        weights=ROUNDED_WELL if how.round_weights else 1.0,
    )
    scale_channels(model, ties, factors)
    return factors_of(ties, factors)


def _seen(found: TensorStatistics) -> Doubles:
    seen: Doubles = (found.zeros + found.positive.sum(axis=1) + found.negative.sum(axis=1)).astype(
        np.float64
    )
    return seen


def _power(found: TensorStatistics) -> Doubles:
    """The mean square of each channel."""
    edges = found.edges.astype(np.float64)
    squares = np.square((edges[:-1] + edges[1:]) / 2)
    power: Doubles = (found.positive + found.negative) @ squares / np.maximum(_seen(found), 1)
    return power


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What calibration and graph say of a tensor, put into what equalization asks."""

    table: Mapping[str, TensorStatistics]
    ties: Ties
    gains: Gains
    grid: Grid
    limit: int

    def has_factors(self, name: str) -> bool:
        """Whether a tensor is of the table and has channels that may be scaled."""
        return name in self.table and bool((self.ties.groups.get(name, _NONE) >= 0).any())

    def rounded(self, name: str) -> Rounded:
        found = self.table[name]
        groups = self.ties.groups[name]
        reach = np.maximum(found.high, -found.low).astype(np.float64)
        signed = bool((found.low < 0).any())
        span = self.grid.high - self.grid.low
        levels = self.grid.high if self.grid.symmetric else span / 2 if signed else span
        return Rounded(
            groups=groups, reach=np.maximum(reach, 0), gain=self.gains[name], levels=levels
        )

    def layers(self, model: ir.Model) -> list[Weighted]:
        """The layers that read a tensor of the table."""
        found = []
        for node in model.graph:
            if node.op_type not in ("Conv", "Gemm") or node.inputs[0] is None:
                continue
            name, weight = node.inputs[0].name or "", constant(node.inputs[1])
            if self.has_factors(name) and weight is not None:
                found.append(self.weighted(node, name, weight))
        return found

    def weighted(self, node: ir.Node, name: str, weight: NDArray[np.float32]) -> Weighted:
        group = node.attributes.get_int("group", 1)
        window = math.prod(weight.shape[2:])
        result = node.outputs[0].name or ""
        return Weighted(
            groups=self.ties.groups[name].reshape(group, -1),
            largest=np.abs(weight).reshape(group, -1, weight.shape[1], window).max(axis=3),
            power=(_power(self.table[name]) * window).reshape(group, -1),
            gain=self.gains[result].reshape(group, -1),
            levels=self.limit,
        )
