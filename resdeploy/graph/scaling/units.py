"""Tensors get the scale 1, or one that they share: the kernels of OpenVINO multiply less then.

A tensor may be stored in any unit: divided by the constant k, it has the scale s / k and the same
integers, and no answer changes. What holds for one factor per channel (`ties`) holds for one of
a tensor, and of all tensors that additions and concatenations tie to it. With k = s the scale is
1, and the kernel that writes the tensor need not multiply by 1 / s.

A residual trunk has one unit and many tensors, x and y = relu(x + f). The kernel of f adds to the
integers of x and multiplies by s_x / s_y. Where the two are nearly equal, both get the larger one.

Of resnet50 with INT8 in OpenVINO, batch 8, on two cores with AMX: 2 to 3 % of the time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from resdeploy.graph.qdq.nodes import input_of, name_of, origin
from resdeploy.graph.scaling.apply import factors_of, scale_channels
from resdeploy.graph.scaling.ranged import Ranged, is_positive
from resdeploy.graph.scaling.ties import Ties, ties_of
from resdeploy.records import TensorRange

# A tensor's rounding gets at most 0.8 dB louder. On the trunks of trained CIFAR-10 networks, whose
# scales grow threefold and more, 1.1 cost 0.0 dB (resnet20) and 0.2 (resnet56), 1.25 0.3 and 0.6,
# 2 2.3 and 2.9.
_ALIKE = 1.1

_BITS = 8  # of a shared scale, behind the first: widened by less than 1 %


def share_scales(floats: Ranged) -> str | None:
    """Give neighbours on a trunk one range where theirs are nearly equal; what was done."""
    shared = [chain for chain in _chains(floats) if len(chain) > 1]
    for chain in shared:
        high = max(floats.ranges[name].max for name in chain)
        for name in chain:
            floats.ranges[name] = floats.ranges[name].model_copy(update={"max": high})
    return f"share scales: {sum(map(len, shared))} tensors" if shared else None


def _chains(floats: Ranged) -> list[list[str]]:
    """The tensors of trunks, those that are neighbours and nearly equal in range together."""
    chains: dict[str, list[str]] = {}
    for before, after in _steps(floats):
        one, two = (chains.setdefault(name, [name]) for name in (before, after))
        highs = [floats.ranges[name].max for name in (*one, *two)]
        if max(highs) <= _ALIKE * min(highs):
            chains.update(dict.fromkeys(two, one))
            one.extend(two)
    return list({id(chain): chain for chain in chains.values()}.values())


def _steps(floats: Ranged) -> Iterator[tuple[str, str]]:
    """The x and y of each y = x + f, or relu(x + f), where a convolution gives f."""
    for node in floats.model.graph:
        if node.op_type != "Add" or node.domain:
            continue
        values = [input_of(node, index) for index in (0, 1)]
        shortcuts = [value for value in values if not _is_convolved(value)]
        if len(shortcuts) != 1:
            continue
        before = name_of(origin(shortcuts[0]))
        after = _behind_relu(node.outputs[0])
        if all(is_positive(floats.ranges.get(name)) for name in (before, after)):
            yield before, after


def _is_convolved(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Conv"


def _behind_relu(value: ir.Value) -> str:
    users = [user for user, _ in value.uses()]
    alone = len(users) == 1 and users[0].op_type == "Relu"
    return name_of(users[0].outputs[0] if alone else value)


def scale_to_one(floats: Ranged) -> str | None:
    """Choose units in which tensors have the scale 1; what was done.

    Of tensors that share a unit, those whose scale is the most frequent get 1. The others get
    one of few bits, for which s · (1 / s) is 1 in float32, too.
    """
    ties = ties_of(floats.model, floats.shapes())
    components = _components(ties)
    known = {
        name: int(components[ties.groups[name][0]])
        for name in floats.ranges
        if name in ties.groups and components[ties.groups[name][0]] != components[-1]
    }
    scales: dict[int, list[float]] = {}
    for name, component in known.items():
        if is_positive(floats.ranges[name]):
            scales.setdefault(component, []).append(_scale_of(floats, name))
    units = {component: Counter(found).most_common(1)[0][0] for component, found in scales.items()}
    factors = np.array([units.get(int(component), 1.0) for component in components[:-1]])
    scale_channels(floats.model, ties, factors)
    for name, row in factors_of(ties, factors).items():
        floats.divided(name, row)
    changed = {name: units[component] for name, component in known.items() if component in units}
    for name, unit in changed.items():
        floats.ranges[name] = _in_unit(floats, name, unit)
    return f"units: {len(changed)} tensors" if changed else None


def _components(ties: Ties) -> NDArray[np.int32]:
    """Which unit each factor has, and as the last one what keeps its own."""
    rows = [np.where(ids < 0, ties.factors, ids) for ids in ties.groups.values()]
    starts = np.concatenate([np.full(len(row), row[0]) for row in rows])
    ends = np.concatenate(rows)
    size = ties.factors + 1
    found: NDArray[np.int32] = connected_components(
        coo_matrix((np.ones(len(ends)), (starts, ends)), shape=(size, size)), directed=False
    )[1]
    return found


def _scale_of(floats: Ranged, name: str) -> float:
    found = floats.ranges[name]
    return floats.grid.step(found.min, found.max)[0]


def _in_unit(floats: Ranged, name: str, unit: float) -> TensorRange:
    found = floats.ranges[name]
    if not is_positive(found):
        return found.model_copy(update={"min": found.min / unit, "max": found.max / unit})
    scale = _scale_of(floats, name)
    levels = round(found.max / scale)
    return found.model_copy(update={"min": 0.0, "max": levels * _of_few_bits(scale / unit)})


def _of_few_bits(scale: float) -> float:
    """The next larger number of few bits whose inverse in float32 inverts it."""
    step = 2.0 ** (math.floor(math.log2(scale)) - _BITS)
    bits = math.ceil(scale / step)
    while np.float32(bits) * (np.float32(1) / np.float32(bits)) != 1:
        bits += 1
    return bits * step
