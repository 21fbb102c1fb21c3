"""TorchScript and pt2: verified, alone in a fresh process, the same bytes in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resdeploy.errors import GraphError, UnknownNameError, UsageError, VerificationError
from resdeploy.formats import EXPORTERS, FORMATS
from resdeploy.formats.exported_program import pt2_from_module
from resdeploy.formats.signature import Signature
from resdeploy.models.reference import resolve
from resdeploy.pipeline.make_export import export_file, exporters_of
from resdeploy.records import BatchProfile, ExportOptions
from resdeploy.runtimes.programs import Pt2Runner
from tests.conftest import Cli
from tests.graph import tools
from tests.graph.tools import exporting

PROGRAMS = ("torchscript", "pt2")

ALONE = """
import sys, torch
path, images, answers = sys.argv[1:]
if path.endswith("pt2"):
    program = torch.export.load(path).module()
else:
    program = torch.jit.load(path)
with torch.no_grad():
    torch.save(program(torch.load(images)), answers)
assert "resdeploy" not in sys.modules
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("format", PROGRAMS)
def test_a_file_answers_alone_in_a_process_without_our_package(format: str, folder: Path) -> None:
    loaded = resolve("resnet20", "embedded:digits")
    path = folder / f"alone{FORMATS[format].suffix}"
    manifest = export_file(exporting(loaded, format=format), path)
    assert {check.name for check in manifest.verification} >= {
        *("agreement-batch-1", "agreement-batch-2", "agreement-batch-3"),
        *("identical-rows", "permuted-rows", "finite-on-zeros", "finite-on-255"),
    }
    images = torch.from_numpy(tools.noise(3, 3, 32, 32))
    torch.save(images, folder / "images.pt")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    arguments = [str(path), str(folder / "images.pt"), str(folder / "answers.pt")]
    subprocess.run([sys.executable, "-c", ALONE, *arguments], check=True, cwd=elsewhere)
    with torch.no_grad():
        expected = loaded.module(images)
    torch.testing.assert_close(torch.load(folder / "answers.pt"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        *(["--format", row.name] for row in FORMATS if row.command == "export"),
        ["--exporter", "dynamo", "--embed-preprocess"],
        ["--precision", "fp16", "--keep", "Gemm"],
    ],
    ids=" ".join,
)
def test_two_processes_write_the_same_bytes(words: list[str], tmp_path: Path) -> None:
    suffix = FORMATS[words[1] if words[0] == "--format" else "onnx"].suffix
    files = [tmp_path / name / f"x{suffix}" for name in ("one", "two")]
    for seed, file in enumerate(files):
        command = [sys.executable, "-m", "resdeploy", "export", "resnet20", *words]
        environ = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([*command, "--quiet", "-o", str(file)], check=True, env=environ)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_pt2_file_keeps_to_its_bounds(tmp_path: Path) -> None:
    loaded = resolve("resnet20", None)
    path = tmp_path / "x.pt2"
    batch = BatchProfile(min=2, opt=3, max=4)
    manifest = export_file(exporting(loaded, format="pt2", batch=batch), path)
    tried = [check.name for check in manifest.verification if check.name.startswith("agreement")]
    assert tried == ["agreement-batch-2", "agreement-batch-3", "agreement-batch-4"]
    with Pt2Runner(path, threads=1) as runner:
        assert runner.run(tools.noise(4, 3, 32, 32)).shape == (4, 10)
        with pytest.raises(GraphError, match=r"x\.pt2 failed on images"):
            runner.run(tools.noise(5, 3, 32, 32))


def test_a_model_that_torch_export_cannot_express() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    with pytest.raises(VerificationError, match=r"torch\.export failed") as raised:
        pt2_from_module(Branches().eval(), Signature(shape=(3, 8, 8)))
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("format", PROGRAMS)
def test_a_damaged_file(format: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / f"x{FORMATS[format].suffix}"
    path.write_bytes(b"PK\x03\x04 no archive")
    said = cli("inspect", path)
    assert said.code == 2
    assert f"cannot load {path}" in said.err


@pytest.mark.parametrize("format", PROGRAMS)
def test_the_commands_take_them(format: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / f"x{FORMATS[format].suffix}"
    said = cli("export", "resnet20", "--weights", "embedded:digits", "--format", format, "-o", path)
    assert said.code == 0, said.err
    assert ("deprecated" in said.err) is (format == "torchscript")
    found = json.loads(cli("inspect", path, "--json").out)
    assert found["graph"]["params"] > 269_000
    assert any("conv" in operator for operator in found["graph"]["operators"])
    drift = json.loads(cli("check", path, "--data", "embedded:digits-evaluation", "--json").out)
    assert drift["drift"][0]["top1_agreement"] == 1
    assert cli("bench", path, "--rounds", "5").code == 0


def test_a_recipe_makes_every_format(tmp_path: Path, cli: Cli) -> None:
    targets = ",".join(
        f'{{ name = "{name}", format = "{name}", precision = "fp32", runtime = "{runtime}" }}'
        for name, runtime in (("onnx", "ort"), ("torchscript", "torchscript"), ("pt2", "pt2"))
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""schema = 1
        name = "formats"
        model = {{ reference = "resnet20", weights = "embedded:digits" }}
        targets = [{targets}]
        bench = {{ rounds = 5 }}
        gate = [{{ metric = "drift.top1_agreement", min = 0.9 }}]
        data = {{ evaluation = {{ embedded = "digits-evaluation", samples = 20 }} }}
        """
    )
    out = tmp_path / "out"
    assert cli("run", recipe, "--out", out).code == 0
    assert {path.name for path in out.glob("*") if path.suffix != ".json"} >= {
        *("onnx.onnx", "torchscript.torchscript", "pt2.pt2"),
    }
    again = cli("run", recipe, "--out", out, "--json")
    steps = json.loads(again.out)["steps"]
    assert all(step["reused"] for step in steps if step["kind"] in ("export", "simplify", "drift"))


class TwoFaced(torch.nn.Module):
    """The tracer writes down one branch; torch.export sees that the batch decides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.fc(x.mean((2, 3)))
        return logits * 2 if torch.jit.is_tracing() else logits


def test_where_the_first_exporter_is_wrong_the_next_one_takes_over(tmp_path: Path) -> None:
    from dataclasses import replace

    loaded = replace(resolve("resnet20", None), module=TwoFaced().eval())
    heard: list[str] = []
    path = tmp_path / "x.onnx"
    manifest = export_file(exporting(loaded), path, notify=heard.append)
    assert manifest.history[0].notes[-1] == "exporter dynamo"
    (said,) = heard
    assert said.startswith("trace was not used: ")
    assert "agreement-batch-1" in said
    with torch.no_grad():
        expected = loaded.module(torch.ones(2, 3, 32, 32)).numpy()
    got = tools.answer(path, np.ones((2, 3, 32, 32), np.float32))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    with pytest.raises(VerificationError, match="agreement-batch-1"):
        export_file(exporting(loaded, options=ExportOptions(exporter="trace")), path)


def test_both_exporters_side_by_side(tmp_path: Path) -> None:
    loaded = resolve("resnet20", None)
    heard: list[str] = []
    path = tmp_path / "x.onnx"
    both = ExportOptions(exporter="both")
    export_file(exporting(loaded, options=both), path, notify=heard.append)
    assert [line.partition(":")[0] for line in heard] == ["trace", "dynamo"]
    assert all("nodes" in line and "max_abs" in line for line in heard)
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]


def test_exporters_are_known_by_name() -> None:
    assert [row.name for row in exporters_of("onnx", ExportOptions())] == ["trace", "dynamo"]
    exported = {row.name for row in FORMATS if row.command == "export"}
    assert {row.format for row in EXPORTERS} == exported
    with pytest.raises(UsageError, match="not exported") as raised:
        exporters_of("engine", ExportOptions())
    assert "resdeploy trt" in raised.value.hint
    with pytest.raises(UnknownNameError, match="exporter of pt2"):
        exporters_of("pt2", ExportOptions(exporter="trace"))
