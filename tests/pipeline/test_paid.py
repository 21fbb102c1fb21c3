"""Whether INT8 paid: what a runtime makes of a file, and both files timed in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy import export
from resdeploy.artifact import Artifact
from resdeploy.pipeline.integers import int8_macs_share
from resdeploy.pipeline.paid import paid, tell_unpaid
from resdeploy.records import Manifest, Paid, TensorFacts
from resdeploy.runtimes import RUNTIMES
from tests.graph import tools

# Two convolutions of 18,432 and 2,048 multiply-accumulates, of which the first is on integers.
HALF_QUANTIZED = """
xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
wd = DequantizeLinear(w, t, o) bd = DequantizeLinear(b, st, i)
a = Conv <pads: ints = [1, 1, 1, 1]> (xd, wd, bd) r = Relu(a)
rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)
c = Conv(rd, v) y = Flatten(c)
"""
WEIGHTS = {
    "s": np.float32(0.02),
    "z": np.uint8(0),
    "t": np.float32(0.01),
    "o": np.int8(0),
    "st": np.float32(0.0002),
    "i": np.int32(0),
    "w": np.random.default_rng(0).integers(-60, 60, (8, 4, 3, 3)).astype(np.int8),
    "b": np.arange(8, dtype=np.int32),
    "v": tools.noise(4, 8, 1, 1),
}
ON_INTEGERS = 18_432 / (18_432 + 2_048)

TELLING = [row.name for row in RUNTIMES if row.integer_layers]


def manifest_of(path: Path) -> Manifest:
    return Manifest(
        name=path.stem,
        format="onnx",
        precision="int8",
        sha256="",
        size_bytes=path.stat().st_size,
        opset=20,
        inputs=(TensorFacts(name="x", dtype="float", shape=("n", 4, 8, 8)),),
        outputs=(),
        model=None,
        preprocess=None,
        verification=(),
        history=(),
    )


@pytest.mark.parametrize("runtime", TELLING)
@pytest.mark.parametrize("names", ["", "same", "/layer1.0/conv, with/words"])
def test_the_share_is_that_of_the_nodes_that_the_runtime_has_on_integers(
    runtime: str, names: str, tmp_path: Path
) -> None:
    """However the nodes are called: a file of others may have no names, or one for all."""
    if not RUNTIMES[runtime].is_installed():
        pytest.skip(f"{runtime} is not installed")
    path = tmp_path / "half.onnx"
    model = tools.proto(HALF_QUANTIZED, WEIGHTS, outputs="float[n,256] y")
    for node in model.graph.node:
        node.name = names
    onnx.save(model, path)
    before = path.read_bytes()
    share = int8_macs_share(path, manifest_of(path), runtime)
    assert share == pytest.approx(ON_INTEGERS)
    assert path.read_bytes() == before
    floats = tmp_path / "float.onnx"
    onnx.save(
        tools.proto("c = Conv(x, v) y = Flatten(c)", {"v": tools.noise(4, 4, 1, 1)},
                    outputs="float[n,256] y"),
        floats,
    )  # fmt: skip
    assert int8_macs_share(floats, manifest_of(floats), runtime) == 0


def test_nothing_is_known_where_the_runtime_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    onnx.save(tools.proto(HALF_QUANTIZED, WEIGHTS, outputs="float[n,256] y"), path)
    manifest = manifest_of(path)
    artifact = Artifact(path=path, sha256="", manifest=manifest)
    assert int8_macs_share(path, manifest, "elsewhere") is None
    assert int8_macs_share(path, manifest, "ort-exact") is None
    assert paid(artifact, artifact, "elsewhere", 1) is None


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two files of which one takes three times as long."""
    folder = tmp_path_factory.mktemp("sizes")
    return [export(name, output=folder / f"{name}.onnx") for name in ("resnet20", "resnet56")]


@pytest.mark.parametrize("runtime", TELLING)
def test_a_file_that_is_slower_than_its_source_is_warned_of_with_numbers(
    runtime: str, small_and_large: list[Artifact]
) -> None:
    if not RUNTIMES[runtime].is_installed():
        pytest.skip(f"{runtime} is not installed")
    small, large = small_and_large
    said: list[str] = []
    faster, slower = paid(large, small, runtime, 1), paid(small, large, runtime, 1)
    assert faster is not None
    assert slower is not None
    assert 3 <= slower.rounds <= 15
    assert slower.ratio == slower.int8_p50_ms / slower.float_p50_ms > 1 > faster.ratio
    tell_unpaid("m", faster, said.append)
    assert said == []
    tell_unpaid("m", slower, said.append)
    assert said[0].startswith("m: INT8 takes ")
    assert f"batch 1, {runtime}, 1 thread)" in said[0]


def test_the_warning_says_how_much_is_left_in_float() -> None:
    times = {"float_p50_ms": 34.1, "int8_p50_ms": 41.0, "ratio": 41.0 / 34.1}
    said: list[str] = []
    for share in (0.625, 1.0, None):
        found = Paid(runtime="ort", threads=2, rounds=15, int8_macs_share=share, **times)
        tell_unpaid("q", found, said.append)
    plain = [sentence.replace("\u00a0", " ") for sentence in said]
    assert "1.20× as long as FP32 here (41.0 ms and 34.1 ms, batch 1, ort, 2 threads)" in plain[0]
    assert "62.50 % of the multiply-accumulates on integers: what stays float" in plain[0]
    assert "100 % of the multiply-accumulates on integers: on this machine" in plain[1]
    assert "multiply-accumulates" not in plain[2]
