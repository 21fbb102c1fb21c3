"""Every kind of block: its tensors find their modules, and what is paired is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from torch import Tensor, nn

from resdeploy.contracts import Call
from resdeploy.formats.onnx import onnx_by_dynamo, onnx_by_trace
from resdeploy.formats.signature import Signature
from resdeploy.graph.cuts import NOISE, REFERENCE, with_noise, with_own_noise
from resdeploy.graph.files import write_model
from resdeploy.graph.pairing import Pairing, pair_tensors
from resdeploy.graph.passes import apply_passes
from resdeploy.models.calls import calls_of
from resdeploy.models.reference import resolve
from resdeploy.pipeline.selftest import KINDS
from resdeploy.records import TensorFacts
from resdeploy.runtimes import Optimization, OrtRunner
from resdeploy.runtimes.watched import WatchedRunner
from tests.graph.tools import noise

# The other kinds consist of the same parts.
SAME = ("resnet18", "resnet18d", "resnet26", "seresnext26d_32x4d")
SOME = tuple(name for name in KINDS if name not in SAME)


def paired(
    module: nn.Module, size: int, exporter: object = onnx_by_trace
) -> tuple[ir.Model, Pairing, tuple[Call, ...]]:
    shape = (3, size, size)
    assert callable(exporter)
    model = exporter(module, Signature(shape=shape))
    apply_passes(model)
    calls = calls_of(module, shape)
    images = TensorFacts(name="input", dtype="float", shape=(1, *shape))
    return model, pair_tensors(model, calls, images), calls


def apart_db(
    model: ir.Model, module: nn.Module, pairing: Pairing, path: Path, size: int
) -> tuple[list[float], list[float]]:
    """Of each pair, SQNR as the graph runs, and of each layer's own."""
    images = noise(2, 3, size, size)
    with WatchedRunner(module, {pair.key for pair in pairing.pairs}, threads=2) as runner:
        runner.run(images)
        given = {
            f"{REFERENCE}{place}": runner.seen[pair.key] for place, pair in enumerate(pairing.pairs)
        }
    found = []
    for change in (with_noise, with_own_noise):
        changed = model.clone()
        change(changed, pairing.pairs, {})
        write_model(changed, path)
        with OrtRunner(path, threads=2, optimization=Optimization.NONE) as session:
            seen = session.run_fed(images, given)
        levels = []
        for place in range(len(pairing.pairs)):
            signal = np.square(given[f"{REFERENCE}{place}"], dtype=np.float64).sum()
            lost = float(seen[f"{NOISE}{place}"])
            levels.append(10 * np.log10(signal / lost) if lost else np.inf)
        found.append(levels)
    return found[0], found[1]


@pytest.mark.parametrize("name", SOME)
def test_every_tensor_of_every_kind_of_block_is_paired_with_its_equal(
    name: str, tmp_path: Path
) -> None:
    size = 32 if name == "resnet20" else 64
    module = resolve(name, None).module
    model, pairing, calls = paired(module, size)
    assert pairing.unpaired == ()
    # Only norms have no row of their own, being in the layer before them.
    assert {call.name for call in calls if call.kind.endswith(("Conv2d", "Linear"))} <= {
        pair.layer for pair in pairing.pairs
    }
    as_run, own = apart_db(model, module, pairing, tmp_path / "cut.onnx", size)
    assert min(own) > 110  # a wrong partner would be about -3
    assert min(as_run) > 80


def test_the_other_exporter_keeps_names_of_weights_and_layers_are_paired_by_these(
    tmp_path: Path,
) -> None:
    module = resolve("resnet20", None).module
    model, pairing, calls = paired(module, 32, onnx_by_dynamo)
    weighted = {call.name for call in calls if call.kind in ("Conv2d", "Linear")}
    assert {pair.layer for pair in pairing.pairs} == weighted
    assert {name for name, _ in pairing.unpaired}.isdisjoint(weighted)
    _, own = apart_db(model, module, pairing, tmp_path / "cut.onnx", 32)
    assert min(own) > 110


class NormAct(nn.BatchNorm2d):
    """A norm with an activation in it, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        activated: Tensor = self.act(super().forward(images))
        return activated


class Awkward(nn.Module):
    """What is foreign to the family: a norm that activates, a shared activation, a plain norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), NormAct(8)
        self.conv2, self.conv3 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.bn3 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        for norm in (self.bn1, self.bn3):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.running_mean, -1, 1)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(images))
        x = self.relu(self.conv2(x))
        x = self.relu(self.bn3(self.conv3(x)) + x)
        return x.mean((2, 3))


def test_foreign_modules_are_paired_with_their_equals_or_not_at_all(tmp_path: Path) -> None:
    module = Awkward()
    model, pairing, _ = paired(module, 16)
    rows = {pair.layer: pair for pair in pairing.pairs}
    # Between convolution and activation there is no tensor of eager PyTorch: they are one row.
    assert rows["conv1"].key == ("bn1.act", 0)
    assert rows["conv1"].operators == ("Conv", "Relu")
    assert rows["conv3"].key == ("bn3", 0)
    assert {"conv2", "relu", "relu (call 2)"} <= set(rows)
    as_run, own = apart_db(model, module, pairing, tmp_path / "cut.onnx", 16)
    assert min(*as_run, *own) > 110


def test_tensors_of_another_shape_are_not_paired(tmp_path: Path) -> None:
    module = Awkward()
    model, _, calls = paired(module, 16)
    images = TensorFacts(name="input", dtype="float", shape=(1, 3, 16, 16))
    wider = [replace(call, shape=(9, *call.shape[1:])) for call in calls]
    pairing = pair_tensors(model, wider, images)
    assert not pairing.pairs
    assert ("conv2", 0) in pairing.unpaired


def test_a_path_that_is_another_modules_is_not_taken(tmp_path: Path) -> None:
    module = Awkward()
    model, _, calls = paired(module, 16)
    images = TensorFacts(name="input", dtype="float", shape=(1, 3, 16, 16))
    assert not pair_tensors(model, calls, images, prefix="module.").pairs
