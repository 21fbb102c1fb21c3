"""What may be loaded: nothing without a sidecar, altered, or built for another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resdeploy.artifact import Artifact, open_artifact, publish, sha256_of_file
from resdeploy.engines import BACKENDS
from resdeploy.engines.header import plan_version
from resdeploy.engines.loading import require_runnable
from resdeploy.engines.runner import EngineRunner
from resdeploy.errors import ArtifactError, EngineError
from resdeploy.records import (
    EngineFacts,
    EngineLayer,
    EngineOptions,
    GpuFacts,
    Manifest,
    ModelFacts,
)
from resdeploy.words import HardwareCompatibility
from tests.conftest import Cli

A100 = GpuFacts(name="NVIDIA A100-SXM4-40GB", sm="8.0", memory_gib=40)
A30 = GpuFacts(name="NVIDIA A30", sm="8.0", memory_gib=24)
L4 = GpuFacts(name="NVIDIA L4", sm="8.9", memory_gib=23)
H100 = GpuFacts(name="NVIDIA H100 80GB HBM3", sm="9.0", memory_gib=79)
RTX_5090 = GpuFacts(name="NVIDIA GeForce RTX 5090", sm="12.0", memory_gib=32)
LATER = GpuFacts(name="of next year", sm="13.0", memory_gib=32)
T4 = GpuFacts(name="Tesla T4", sm="7.5", memory_gib=15)
TENSORRT, RTX = BACKENDS["tensorrt"], BACKENDS["rtx"]


def plan(*version: int) -> bytes:
    return b"ptrt" + bytes(20) + bytes(version) + bytes(100)


def engine(
    folder: Path,
    *,
    gpu: GpuFacts | None = A100,
    backend: str = "tensorrt",
    version: tuple[int, ...] = (10, 12, 0, 36),
    **options: Any,
) -> Artifact:
    """A published file that begins like an engine."""
    made = folder / "made"
    made.write_bytes(plan(*version))
    facts = EngineFacts(
        backend=backend,
        version=".".join(map(str, version)),
        cuda="12.9",
        gpu=gpu,
        options=EngineOptions(**options),
        source_sha256="0" * 64,
        obtained=(),
    )
    model = ModelFacts(
        reference="resnet18", weights="w.pth", weights_sha256=None, trained=True,
        num_classes=1000, in_channels=3, params=11_689_512,
    )  # fmt: skip
    manifest = Manifest(
        name="x", format="engine", precision="int8-fp16", sha256=sha256_of_file(made),
        size_bytes=128, opset=None, inputs=(), outputs=(), model=model, preprocess=None,
        engine=facts, verification=(), history=(),
    )  # fmt: skip
    return publish(made, folder / "x.engine", manifest)


@pytest.mark.parametrize(
    ("options", "built", "here", "fits"),
    [
        ({}, A100, A100, True),
        ({}, A100, A30, False),  # another GPU of the same capability
        ({}, A100, L4, False),
        ({"hardware": HardwareCompatibility.SAME}, A100, A30, True),
        ({"hardware": HardwareCompatibility.SAME}, A100, L4, False),
        ({"hardware": HardwareCompatibility.AMPERE_PLUS}, A100, L4, True),
        ({"hardware": HardwareCompatibility.AMPERE_PLUS}, A100, T4, False),
        ({"compute_capabilities": ("8.6", "8.9")}, None, L4, True),
        ({"compute_capabilities": ("8.6", "8.9")}, None, A100, False),
        ({}, None, L4, True),  # RTX's own choice: Ampere and later
        ({}, None, RTX_5090, True),
        ({}, None, LATER, True),
        ({"compute_capabilities": ("12.0",)}, None, LATER, False),
        ({}, None, T4, False),
        ({}, None, H100, False),  # TensorRT-RTX 1.7.1 refused it on one
    ],
)
def test_the_gpu_must_be_one_that_it_was_built_for(
    tmp_path: Path, options: dict[str, Any], built: GpuFacts | None, here: GpuFacts, fits: bool
) -> None:
    made = engine(tmp_path, gpu=built, **options)
    if fits:
        require_runnable(made, TENSORRT, "10.12.0.36", here, trusted=False)
        return
    with pytest.raises(EngineError, match=f"was built for.*this is {here.name}") as raised:
        require_runnable(made, TENSORRT, "10.12.0.36", here, trusted=False)
    assert "resdeploy trt resnet18 --weights w.pth --int8" in raised.value.hint


def test_a_gpu_that_the_backend_does_not_support_is_named_with_those_that_it_does(
    tmp_path: Path,
) -> None:
    made = engine(tmp_path, gpu=None, backend="rtx", version=(1, 7, 1, 116))
    with pytest.raises(EngineError, match="tensorrt_rtx does not run on NVIDIA H100") as raised:
        require_runnable(made, RTX, "1.7.1.116", H100, trusted=False)
    assert "8.9" in raised.value.hint
    require_runnable(made, RTX, "1.7.1.116", L4, trusted=False)


@pytest.mark.parametrize(
    ("version", "options", "fits"),
    [
        ("10.12.0.36", {}, True),
        ("10.13.0.35", {}, False),
        ("11.1.0.1", {}, False),
        ("11.1.0.1", {"version_compatible": True}, True),
        ("10.11.0.1", {"version_compatible": True}, False),  # an older one than built it
    ],
)
def test_the_version_in_the_header_must_be_the_one_that_is_installed(
    tmp_path: Path, version: str, options: dict[str, Any], fits: bool
) -> None:
    made = engine(tmp_path, **options)
    if fits:
        require_runnable(made, TENSORRT, version, A100, trusted=False)
        return
    with pytest.raises(EngineError, match=rf"built with tensorrt 10\.12\.0\.36.*is {version}"):
        require_runnable(made, TENSORRT, version, A100, trusted=False)


def test_without_a_gpu_it_says_so_and_for_which_it_was_built(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"needs an NVIDIA GPU.*A100"):
        require_runnable(engine(tmp_path), TENSORRT, "10.12.0.36", None, trusted=False)


def test_without_a_sidecar_the_user_must_vouch_for_it(tmp_path: Path) -> None:
    path = tmp_path / "alone.engine"
    path.write_bytes(plan(10, 12, 0, 36))
    with pytest.raises(EngineError, match="no sidecar") as raised:
        require_runnable(open_artifact(path), TENSORRT, "10.12.0.36", A100, trusted=False)
    assert "--trust" in raised.value.hint
    require_runnable(open_artifact(path), TENSORRT, "10.12.0.36", A100, trusted=True)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_file_that_was_altered_is_refused_before_anything_else(
    tmp_path: Path, trusted: bool
) -> None:
    """No backend is needed to see it: nothing is loaded, whoever vouches for the file."""
    path = engine(tmp_path).path
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with (
        pytest.raises(ArtifactError, match="sidecar was written for"),
        EngineRunner(path, TENSORRT, trusted=trusted),
    ):
        pass


def test_the_layers_that_a_gpu_showed_are_counted(tmp_path: Path, cli: Cli) -> None:
    def layer(name: str, kind: str, *inputs: str) -> EngineLayer:
        return EngineLayer(name=name, kind=kind, inputs=inputs, outputs=inputs, tactic="sm80_x")

    made = engine(tmp_path)
    assert made.manifest is not None
    assert made.manifest.engine is not None
    layers = (
        layer("a", "CaskConvolution", "int8"),
        layer("b", "CaskConvolution", "int8", "fp16"),
        layer("c", "Reformat", "fp16"),
    )
    facts = made.manifest.engine.model_copy(update={"layers": layers})
    manifest = made.manifest.model_copy(update={"engine": facts})
    path = publish(made.path, tmp_path / "y.engine", manifest).path
    shown = " ".join(cli("inspect", path, "--nodes").out.split())
    assert "3: 1 read int8, 1 read fp16 and int8, 1 read fp16; 1 of them are reformats" in shown
    assert "CaskConvolution" in shown
    assert "NVIDIA A100" in shown


def test_the_version_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(plan(1, 7, 1, 116))
    assert plan_version(path) == (1, 7, 1, 116)
    for damaged in (b"", b"ptrt", b"ONNX" + bytes(60)):
        path.write_bytes(damaged)
        assert plan_version(path) is None
