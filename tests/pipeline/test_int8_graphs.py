"""Graphs of other people, from pixels to a verified INT8 file, for every target."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy import quantize
from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.scaling.record import read_factors
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.records import QuantizeOptions
from tests.graph import tools
from tests.graph.test_scaling import weight

SAME = "pads=[1,1,1,1]"
END = "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, v, e)"
CHOICE = InputChoice(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))

# Below this a verified file is not written at all.
MIN_SQNR_DB = 20.0

WEIGHTS = {
    "w": weight(16, 3, 3, 3, seed=1),
    "b": tools.noise(16, seed=2) / 4,
    "u": weight(16, 16, 3, 3, seed=3),
    "g": weight(16, 8, 3, 3, seed=4),
    "h": weight(8, 8, 3, 3, seed=5),
    "k": weight(16, 16, 1, 1, seed=6),
    "l": weight(16, 16, 1, 1, seed=9),
    "v": weight(5, 16, seed=7),
    "e": tools.noise(5, seed=8),
    "two": np.full((1, 16, 1, 1), 2, np.float32),
    "halves": np.array([-1, 8, 8, 8]),
    "whole": np.array([-1, 16, 8, 8]),
}

BODIES = {
    "gate": f"""a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u, b)
        s = GlobalAveragePool(d) i = Conv(s, k) j = Sigmoid(i) m = Mul(d, j) t = Add(m, q)
        r = Relu(t) {END}""",
    "product with a constant": f"""a = Conv<{SAME}>(x, w, b) q = Relu(a) m = Mul(q, two)
        r = Conv<{SAME}>(m, u) {END}""",
    "pads by itself": f"""a = Conv<auto_pad="SAME_UPPER", strides=[8,8]>(x, w, b) q = Relu(a)
        r = Conv<auto_pad="SAME_LOWER">(q, u) {END}""",
    "groups": f"a = Conv<{SAME}>(x, w, b) q = Relu(a) r = Conv<{SAME}, group=2>(q, g, b) {END}",
    "channels folded into the batch": f"""a = Conv<{SAME}>(x, w, b) q = Relu(a)
        s = Reshape(q, halves) d = Conv<{SAME}>(s, h) t = Reshape(d, whole) r = Relu(t) {END}""",
    "joined along height": f"""a = Conv<{SAME}>(x, w, b) q = Relu(a) j = Concat<axis=2>(q, q)
        r = Conv<{SAME}>(j, u) {END}""",
    "projection shortcut": f"""a = Conv<{SAME}>(x, w, b) q = Relu(a)
        d = Conv<{SAME}, strides=[2,2]>(q, u, b) i = Relu(d) m = Conv(i, k, b)
        s = Conv<strides=[2,2]>(q, l) t = Add(m, s) r = Relu(t) {END}""",
    "our names": f"""a = Conv<{SAME}>(x, w, b) a_weight_scaled = Relu(a)
        x_pixels = Conv<{SAME}>(a_weight_scaled, u, b) r = Relu(x_pixels) {END}""",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    drawn = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=drawn)
    return path


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_each_is_quantized_and_verified(body: str, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(tools.proto(body, WEIGHTS, inputs="float[n,3,8,8] x", opset=17), path)
    for emitter in EMITTERS:
        out = tmp_path / f"{emitter.name}.onnx"
        made = quantize(str(path), data=str(images), target=emitter.name, output=out, choice=CHOICE)
        manifest = made.artifact.manifest
        assert manifest is not None
        checks = {check.name: check.value for check in manifest.verification}
        assert checks["quantize.sqnr-db"] > MIN_SQNR_DB, emitter.name
        assert "quantize.target-reads-it" in checks


@pytest.mark.parametrize("equalize", [True, False])
def test_a_joined_shortcut_is_noted(equalize: bool, images: Path, tmp_path: Path) -> None:
    """What the branch was divided by for it is in the file, as what equalization divided by is."""
    path, out = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    body = BODIES["projection shortcut"]
    onnx.save(tools.proto(body, WEIGHTS, inputs="float[n,3,8,8] x", opset=17), path)
    made = quantize(
        str(path), data=str(images), target="openvino", output=out, choice=CHOICE,
        how=QuantizeOptions(equalize=equalize),
    )  # fmt: skip
    facts = made.artifact.manifest and made.artifact.manifest.quantization
    assert facts is not None
    assert "join shortcuts: 1 additions" in facts.steps
    factors = read_factors(read_model(out))
    assert factors is not None
    seen, pixels = [], np.load(images)["images"][:4] / np.float32(255)
    shown = ((pixels - np.float32(CHOICE.mean)) / np.float32(CHOICE.std)).transpose(0, 3, 1, 2)
    for file in (path, out):
        model = read_model(file)
        (value,) = (value for node in model.graph for value in node.outputs if value.name == "i")
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(["n", 16, 4, 4])
        model.graph.outputs[:] = [value]
        write_model(model, tmp_path / "inside.onnx")
        seen.append(tools.answer(tmp_path / "inside.onnx", shown, exact=True))
    got = seen[1] * factors["i"].reshape(1, -1, 1, 1)
    assert tools.sqnr_db(seen[0], got) > MIN_SQNR_DB


def test_what_costs_the_target_speed_is_told(images: Path, tmp_path: Path) -> None:
    """A mean that nobody made a pooling of is right, and slow."""
    path = tmp_path / "float.onnx"
    mean = "p = ReduceMean<axes=[2,3]>(r) f = Flatten(p) y = Gemm<transB=1>(f, v, e)"
    body = f"a = Conv<{SAME}>(x, w, b) r = Relu(a) {mean}"
    onnx.save(tools.proto(body, WEIGHTS, inputs="float[n,3,8,8] x", opset=17), path)
    said: list[str] = []
    quantize(
        str(path), data=str(images), target="tensorrt", output=tmp_path / "out.onnx",
        choice=CHOICE, notify=said.append,
    )  # fmt: skip
    assert any(line.startswith("tensorrt: 1 nodes") and "ReduceMean" in line for line in said)


QUANTIZING = """
import sys
from pathlib import Path
from resdeploy import quantize
from tests.pipeline.test_int8_graphs import CHOICE
source, images, out = sys.argv[1:]
quantize(source, data=images, output=Path(out), choice=CHOICE)
"""


def test_two_processes_give_the_same_bytes(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(tools.proto(BODIES["gate"], WEIGHTS, inputs="float[n,3,8,8] x", opset=17), path)
    for name in ("one", "two"):
        command = [sys.executable, "-c", QUANTIZING, path, images, tmp_path / f"{name}.onnx"]
        subprocess.run(command, check=True)
    for suffix in ("onnx", "calibration.safetensors"):
        one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two, suffix
