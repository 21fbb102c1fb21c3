"""Which runtime runs an artifact: the one that is named, or the one that it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdeploy import quantize
from resdeploy.artifact import Artifact
from resdeploy.errors import ArtifactError, UnknownNameError, UsageError
from resdeploy.graph import EMITTERS
from resdeploy.pipeline.runtime_choice import require_timed, runtime_for
from resdeploy.runtimes import EXACT, RUNTIMES


@pytest.fixture(scope="module")
def for_ort(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("int8") / "q.onnx"
    data = "embedded:digits-calibration"
    made = quantize("resnet20", weights="embedded:digits", data=data, samples=8, output=path)
    return made.artifact


def meant_for(target: str, artifact: Artifact) -> Artifact:
    """The same file, by a sidecar that says that it was quantized for another target."""
    assert artifact.manifest is not None
    assert artifact.manifest.quantization is not None
    facts = artifact.manifest.quantization.model_copy(update={"target": target})
    manifest = artifact.manifest.model_copy(update={"quantization": facts})
    return Artifact(path=artifact.path, sha256=artifact.sha256, manifest=manifest)


@pytest.mark.parametrize("target", EMITTERS.names)
def test_an_int8_file_is_run_by_its_own_runtime_or_simulated(
    target: str, for_ort: Artifact
) -> None:
    """Never by another one: its kernels are not those that the answers will come from."""
    chosen = runtime_for(meant_for(target, for_ort))
    assert EMITTERS[target].runtime in (chosen.name, *chosen.simulates)


def test_other_files_are_run_by_the_first_runtime_of_their_format() -> None:
    for name, runtime in (("m.onnx", "ort"), ("m.torchscript", "torchscript"), ("m.pt2", "pt2")):
        artifact = Artifact(path=Path(name), sha256="", manifest=None)
        assert runtime_for(artifact).name == runtime
    with pytest.raises(ArtifactError, match="of no format"):
        runtime_for(Artifact(path=Path("m.bin"), sha256="", manifest=None))


def test_a_runtime_that_is_named_is_taken_or_refused(for_ort: Artifact) -> None:
    for row in RUNTIMES:
        if "onnx" in row.formats:
            assert runtime_for(for_ort, row.name) is row
        else:
            with pytest.raises(UsageError, match=f"{row.name} does not run .* which is onnx"):
                runtime_for(for_ort, row.name)
    with pytest.raises(UnknownNameError) as raised:
        runtime_for(for_ort, "openvin")
    assert "openvino" in raised.value.hint


def test_a_simulation_is_not_timed(for_ort: Artifact) -> None:
    timed = []
    for row in RUNTIMES:
        try:
            require_timed(for_ort, row)
        except UsageError:
            assert row.simulates
        else:
            timed.append(row.name)
    assert "ort" in timed
    assert EXACT not in timed
