"""Every command on real files: the product on stdout, the rest on stderr, the right code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import ExitCode
from resdeploy.models.reference import resolve
from tests.conftest import ROOT, Cli, python_without

COMMANDS = (
    "models", "show", "export", "simplify", "cast", "quantize", "trt", "check", "bench", "run",
    "gate", "report", "predict", "inspect", "doctor", "baseline",
)  # fmt: skip


def test_help_names_every_command_and_every_command_has_help(cli: Cli) -> None:
    assert cli().code == cli("--help").code == ExitCode.DONE
    listed = re.findall(r"^  ([a-z]+) {2,}\S", cli("--help").out.split("Commands:")[1], re.M)
    assert tuple(listed) == COMMANDS
    for command in COMMANDS:
        said = cli(command, "--help")
        assert said.code == ExitCode.DONE
        assert "--json" in said.out or command == "baseline"


def test_every_command_is_in_the_readme_and_the_readme_names_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^\$ resdeploy ([a-z]+)", readme, re.M))
    assert commands == set(COMMANDS)


@pytest.mark.parametrize(
    "command",
    [["--help"], ["models", "*", "--sort", "top1"], ["gate", "{run}"], ["doctor"]],
    ids=lambda command: command[0],
)
def test_light_commands_import_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    from tests.factories import run_result

    path = tmp_path / "results.json"
    path.write_text(run_result().to_json())
    arguments = [part.format(run=path) for part in command]
    code = (
        "import sys; from resdeploy.cli.app import exit_code_of\n"
        f"code = exit_code_of({arguments!r})\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnx_ir', 'onnxsim', 'scipy', 'matplotlib'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
        "assert code in (0, 1, 3), code"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr


def test_export_json_names_the_artifact_its_hash_and_its_verification(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "resnet20.onnx"
    said = cli("export", "resnet20", "--weights", "embedded:digits", "-o", path, "--json")
    document = json.loads(said.out)
    assert document["schema"] == 1
    assert document["path"] == str(path)
    assert document["sha256"] == sha256_of_file(path)
    assert Path(document["sidecar"]).name == "resnet20.onnx.json"
    names = [check["name"] for check in document["verification"]]
    assert "agreement-batch-1" in names
    assert "agreement-batch-3" in names
    assert document["model"]["trained"] is True


def test_the_export_answers_as_eager_does(exported: Path) -> None:
    images = np.random.default_rng(3).standard_normal((5, 3, 32, 32), dtype=np.float32)
    session = ort.InferenceSession(str(exported))
    with torch.inference_mode():
        module = resolve("resnet20", "embedded:digits").module
        expected = module(torch.from_numpy(images)).numpy()
    for batch in (images, images[:1]):
        (got,) = session.run(["logits"], {"input": batch})
        assert np.abs(got - expected[: len(batch)]).max() < 1e-4


def test_random_weights_are_said_aloud_and_recorded(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "r.onnx"
    said = cli("export", "resnet18", "--size", 64, "-o", path)
    assert said.out == f"{path}\n"
    assert "not a trained model" in said.err
    assert json.loads(path.with_name("r.onnx.json").read_text())["model"]["trained"] is False


def test_check_finds_the_reference_by_the_sidecars(
    cli: Cli, exported: Path, quantized: Path
) -> None:
    said = cli("check", exported, quantized, "--data", "embedded:digits-evaluation", "--json")
    assert said.code == ExitCode.DONE
    records = {record["name"]: record for record in json.loads(said.out)["drift"]}
    assert records["m"]["flips"] == 0
    assert records["q"]["top1_agreement"] > 0.98
    assert records["q"]["samples"] == 400


def test_check_runs_candidates_by_the_runtime_that_is_named(
    cli: Cli, exported: Path, quantized: Path
) -> None:
    command = ("check", exported, quantized, "--data", "embedded:digits-evaluation")
    plain = json.loads(cli(*command, "--json").out)["drift"]
    exact = json.loads(cli(*command, "--simulate", "--json").out)["drift"]
    assert [record["runtime"] for record in plain] == ["ort"] * 2
    assert [record["runtime"] for record in exact] == ["ort-exact"] * 2
    assert exact[1]["sqnr_db"] != plain[1]["sqnr_db"]
    assert "ort-exact" in cli(*command, "--runtime", "ort-exact").out


def test_a_runtime_that_is_not_installed_is_an_error_that_names_its_extra(exported: Path) -> None:
    code = (
        "from resdeploy.cli.app import exit_code_of\n"
        f"sys.exit(exit_code_of(['bench', {str(exported)!r}, '--runtime', 'openvino']))"
    )
    said = python_without(("openvino",), code)
    assert said.returncode == ExitCode.ERROR
    assert "'openvino', which is not installed" in said.stderr
    assert "resdeploy[openvino]" in said.stderr


def test_changed_weights_are_noticed(cli: Cli, exported: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = tmp_path / "w.safetensors"
    state = load_file(ROOT / "resdeploy/assets/digits/resnet20.safetensors")
    save_file(state, weights)
    artifact = tmp_path / "m.onnx"
    assert cli("export", "resnet20", "--weights", weights, "-o", artifact).code == 0
    state["fc.bias"] += 1
    save_file(state, weights)
    said = cli("check", artifact, "--data", "embedded:digits-evaluation")
    assert said.code == ExitCode.ERROR
    assert "are not those" in said.err


def test_bench_times_eager_and_the_artifacts(cli: Cli, exported: Path, quantized: Path) -> None:
    said = cli("bench", exported, quantized, "--batch", "1,2", "--rounds", 5, "--json")
    rows = json.loads(said.out)["bench"]
    assert [(row["name"], row["batch"]) for row in rows] == [
        (name, batch) for batch in (1, 2) for name in ("eager", "m", "q")
    ]
    for row in rows:
        assert len(row["samples_ns"]) == 5
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert rows[0]["speedup"] == 1


def test_an_onnx_file_from_elsewhere_is_simplified_quantized_and_shown(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    """Without a sidecar nothing is known of it but the graph, and nothing is made up."""
    path = tmp_path / "theirs.onnx"
    path.write_bytes(exported.read_bytes())
    assert cli("simplify", path).out == f"{tmp_path / 'theirs-simplified.onnx'}\n"
    assert "not recorded" in cli("inspect", tmp_path / "theirs-simplified.onnx").out
    image = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    out = tmp_path / "q.onnx"
    said = cli("quantize", path, "--data", "embedded:digits-calibration", *image, "-o", out)
    assert said.code == ExitCode.DONE, said.err
    said = cli(
        "check", out, "--data", "embedded:digits-evaluation", "--samples", 50, "--json",
        "--reference", "resnet20", "--weights", "embedded:digits",
    )  # fmt: skip
    assert json.loads(said.out)["drift"][0]["top1_agreement"] > 0.95


def test_a_model_of_four_channels_is_exported_and_timed_but_not_fed_with_images(
    cli: Cli, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(ROOT / "resdeploy/assets/digits/resnet20.safetensors")
    first = state["conv1.weight"]
    state["conv1.weight"] = torch.cat([first, first[:, :1]], dim=1).contiguous()
    save_file(state, tmp_path / "w.safetensors")
    path = tmp_path / "m.onnx"
    weights = tmp_path / "w.safetensors"
    assert cli("export", "resnet20", "--weights", weights, "-o", path).code == ExitCode.DONE
    assert cli("bench", path, "--rounds", 5).code == ExitCode.DONE
    for command in ("check", "quantize"):
        said = cli(command, path, "--data", "embedded:digits-evaluation")
        assert said.code == ExitCode.ERROR
        assert "4 channels" in said.err


def test_labels_of_other_classes_are_refused(cli: Cli, exported: Path, tmp_path: Path) -> None:
    """Nine folders for ten classes would shift every label behind the missing one."""
    for label in range(9):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), (label, label, label)).save(folder / "x.png")
    said = cli("check", exported, "--data", tmp_path / "images")
    assert said.code == ExitCode.ERROR
    assert "9 classes" in said.err
    archive = tmp_path / "far.npz"
    np.savez(archive, images=np.zeros((1, 32, 32), np.uint8), labels=np.array([10]))
    said = cli("check", exported, "--data", archive)
    assert said.code == ExitCode.ERROR
    assert "label 10" in said.err


def test_a_candidate_called_eager_does_not_take_the_reference_s_place(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "eager.onnx"
    path.write_bytes(exported.read_bytes())
    path.with_name("eager.onnx.json").write_bytes(exported.with_name("m.onnx.json").read_bytes())
    rows = json.loads(cli("bench", path, "--rounds", 5, "--json").out)["bench"]
    assert [row["name"] for row in rows] == ["eager", str(path)]


def test_weights_are_found_beside_an_artifact_that_moved(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    weights = (ROOT / "resdeploy/assets/digits/resnet20.safetensors").read_bytes()
    (here / "w.safetensors").write_bytes(weights)
    monkeypatch.chdir(here)
    assert cli("export", "resnet20", "--weights", "w.safetensors", "-o", "m.onnx").code == 0
    here.rename(there)
    monkeypatch.chdir(tmp_path)
    command = ("check", there / "m.onnx", "--data", "embedded:digits-evaluation", "--json")
    assert json.loads(cli(*command).out)["drift"][0]["flips"] == 0
    (there / "w.safetensors").rename(tmp_path / "elsewhere.safetensors")
    said = cli(*command)
    assert said.code == ExitCode.ERROR
    assert "--weights" in said.err
    said = cli(*command, "--weights", "elsewhere.safetensors")
    assert json.loads(said.out)["drift"][0]["flips"] == 0


def test_predict_gives_the_class_that_check_counts(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    with np.load(ROOT / "resdeploy/assets/digits/evaluation.npz") as archive:
        pixels, label = archive["images"][0], int(archive["labels"][0])
    image = tmp_path / "digit.png"
    Image.fromarray(pixels).save(image)
    said = cli("predict", exported, image, "--top", 2, "--json")
    (prediction,) = json.loads(said.out)["predictions"]
    assert prediction["top"][0]["index"] == label
    assert prediction["top"][0]["probability"] > prediction["top"][1]["probability"]


def test_inspect_tells_what_differs_between_two_files(
    cli: Cli, exported: Path, quantized: Path
) -> None:
    document = json.loads(cli("inspect", exported, quantized, "--json").out)
    found = {row["name"]: (row["left"], row["right"]) for row in document["differences"]}
    assert found["graph.precision"] == ("fp32", "int8")
    left, right = (int(count or 0) for count in found["graph.operators.QuantizeLinear.uint8"])
    assert (left, right > 0) == (0, True)
    assert found["graph.operators.Conv.fp32"] == ("19", "")
    assert found["graph.operators.Conv.int8"] == ("", "19")
    assert not any(name.startswith(("graph.macs", "graph.node_facts")) for name in found)
    assert found["manifest.quantization.target"] == ("", "ort-cpu")
    assert not any(name.startswith(("path", "manifest.preprocess")) for name in found)
    assert "graph.precision" in cli("inspect", exported, quantized).out
    assert "are the same" in cli("inspect", exported, exported).out


def test_inspect_shows_operators_and_provenance(cli: Cli, quantized: Path) -> None:
    document = json.loads(cli("inspect", quantized, "--json").out)
    assert document["graph"]["precision"] == "int8"
    assert document["graph"]["operators"]["Conv"] == 19
    assert document["manifest"]["quantization"]["calibration"]["data"]["samples"] == 200
    steps = document["manifest"]["quantization"]["steps"]
    assert [step.split(":")[0] for step in steps] == [
        *("equalize", "pixel grid", "round weights", "correct bias")
    ]
    assert document["manifest"]["quantization"]["int8_macs_share"] == 1
    assert "QuantizeLinear" in cli("inspect", quantized).out


def test_quantize_times_the_file_beside_its_source(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    command = ("quantize", exported, "--data", "embedded:digits-calibration", "--samples", 8)
    said = cli(*command, "-o", tmp_path / "a.onnx", "--json")
    found = json.loads(said.out)["paid"]
    assert found["runtime"] == "ort"
    assert found["ratio"] == found["int8_p50_ms"] / found["float_p50_ms"]
    assert found["int8_macs_share"] == 1
    assert "as long as FP32 here" in " ".join(said.err.split())
    cli(*command, "-o", tmp_path / "b.onnx")
    one, other = (tmp_path / f"{name}.onnx.json" for name in "ab")
    assert one.read_bytes() == other.read_bytes()  # timings are no part of a sidecar


def test_listings_have_the_records_field_names(cli: Cli) -> None:
    models = json.loads(cli("models", "resnet50", "resnet56", "--json").out)["models"]
    assert [row["name"] for row in models] == ["resnet50", "resnet56"]
    assert models[0]["params"] == 25_557_032
    layers = json.loads(cli("show", "resnet18", "--json").out)
    rows = layers["layers"]
    assert sum(row["macs"] for row in rows if row["leaf"]) == rows[0]["macs"] == layers["macs"]
    assert sum(row["own_params"] for row in rows) == layers["params"] == 11_689_512
    assert cli("doctor", "--json").code == ExitCode.DONE


def test_an_export_loads_nothing_that_only_measures(tmp_path: Path) -> None:
    """Scipy alone took 0.7 s of an export of 7 s."""
    code = f"sys.argv = ['resdeploy', 'export', 'resnet20', '-o', {str(tmp_path / 'x.onnx')!r}]\n"
    code += "from resdeploy.cli.app import main\nmain()\n"
    said = python_without(("scipy", "matplotlib", "openvino"), code)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "x.onnx").is_file()
