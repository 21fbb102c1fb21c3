"""A user's own code that has changed: what was made from it is made again, or refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from resdeploy.errors import ExitCode
from resdeploy.models.probe import same_answers, state_digest
from resdeploy.models.reference import resolve
from resdeploy.pipeline.run import prepare
from tests.conftest import Cli

NET = """
import torch
import torch.nn.functional as F
from torch import nn
import helper, installed

class Net(nn.Module):
    preprocess = {"size": 32}
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.act = lambda x: x
        self.fc = nn.Linear(8, 10)
    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3))) * helper.SCALE

def build():
    print("it is built")
    return Net()

def other():
    net, generator = Net(), torch.Generator().manual_seed(7)
    nn.init.normal_(net.fc.weight, std=0.02, generator=generator)
    return net

class Printed(nn.Module):
    def __init__(self, work):
        super().__init__()
        self.work = work
    def extra_repr(self):
        return str(self.work)
    def forward(self, x):
        return x

def with_address():
    net = build()
    net.printed = Printed(lambda x: x)
    return net
"""

INSTALLED = """
def build():
    from mine import Net
    return Net()
"""

RECIPE = """
schema = 1
name = "mine"
model = { reference = "mine:build", weights = "WEIGHTS" }
targets = [{ name = "a", format = "onnx", precision = "fp32", runtime = "ort" }]
bench = { batches = [1], rounds = 5, warmup = 1, threads = 1 }
data = { evaluation = { synthetic = 4 } }
"""

DATA = ("--data", "synthetic:4", "--json")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: `mine.py`, what it needs, and an environment inside it."""
    libraries = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    libraries.mkdir(parents=True)
    (libraries / "installed.py").write_text(INSTALLED)
    (tmp_path / "mine.py").write_text(NET)
    (tmp_path / "helper.py").write_text("SCALE = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(libraries)])
    yield tmp_path
    forget()


def forget() -> None:
    """What a new process would not have: the modules of the project."""
    for name in ("mine", "helper", "installed"):
        sys.modules.pop(name, None)


def change(file: Path, old: str, new: str) -> None:
    """Change the text of a file, as its author would between two commands."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    forget()


def keys(project: Path, weights: str = "random") -> list[str]:
    """The steps of a run, as a new process would plan them."""
    forget()
    recipe = project / "recipe.toml"
    recipe.write_text(RECIPE.replace("WEIGHTS", weights))
    return [step.key for step in prepare(recipe).plan.steps]


@pytest.mark.parametrize("weights", ["random", "own"])
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine.py", "F.relu(", "F.relu6("),  # which answers the same until something is above 6
        ("mine.py", "nn.BatchNorm2d(8)", "nn.Identity()"),
        ("helper.py", "1", "1.0"),
    ],
    ids=["activation", "layer", "another-file"],
)
def test_other_code_is_exported_again(
    project: Path, weights: str, file: str, old: str, new: str
) -> None:
    before = keys(project, weights)
    assert keys(project, weights) == before
    change(project / file, old, new)
    assert set(keys(project, weights)).isdisjoint(before)


def test_what_has_no_part_in_a_model_does_not_count(project: Path) -> None:
    before = keys(project)
    (project / "unrelated.py").write_text("SCALE = 3")
    (libraries,) = project.rglob("site-packages")
    change(libraries / "installed.py", "Net()", "Net().train()")
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert keys(project) == before
    finally:
        torch.set_num_threads(threads)


def test_an_installed_package_counts_where_the_model_is_its_own(project: Path) -> None:
    model = resolve("installed:build", None)
    assert not any("working directory" in note for note in model.notes)
    assert any("working directory" in note for note in resolve("mine:build", None).notes)
    (libraries,) = project.rglob("site-packages")
    change(libraries / "installed.py", "Net()", "Net().train()")
    assert resolve("installed:build", None).fingerprint != model.fingerprint


def test_addresses_in_memory_are_no_part_of_a_model(project: Path) -> None:
    made = [resolve("mine:with_address", None) for _ in range(2)]
    assert str(made[0].module) != str(made[1].module)
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].facts == made[1].facts


def exported(cli: Cli, reference: str, path: str, *more: object) -> dict[str, Any]:
    said = cli("export", reference, "-o", path, "--json", *more)
    assert said.code == ExitCode.DONE, said.err
    facts: dict[str, Any] = json.loads(said.out)["model"]
    return facts


def test_own_weights_are_known_again_and_changed_ones_refused(project: Path, cli: Cli) -> None:
    facts = exported(cli, "mine:other", "m.onnx", "--weights", "own")
    assert facts["trained"] is True
    assert facts["weights_sha256"] == state_digest(resolve("mine:other", None).module)
    forget()
    said = cli("check", "m.onnx", *DATA)
    assert json.loads(said.out)["drift"][0]["flips"] == 0
    change(project / "mine.py", "std=0.02", "std=0.025")
    said = cli("check", "m.onnx", *DATA)
    assert said.code == ExitCode.ERROR
    assert said.out == ""
    assert "mine:other has changed" in said.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("F.relu(", "torch.tanh(", "has changed since m.onnx was made from it: the same image has"),
        ("* helper", "/ 1.01 * helper", "has changed since m.onnx was made from it: the same"),
        ("Norm2d(8)", "Norm2d(8, eps=0.1)", "its weights or its layers are others"),
        ("return Net()", "return other()", "its weights or its layers are others"),
        ("2d(3, 8, 3)", "2d(3, 8, 5)", "is not the model that m.onnx was made from: params"),
        ("* helper.SCALE", "* helper.SCALE  # a comment", ""),
    ],
)
@pytest.mark.parametrize("command", [("check", *DATA), ("bench", "--rounds", 5)])
def test_what_was_made_from_other_code_is_not_held_against_it(
    project: Path, cli: Cli, command: tuple[object, ...], old: str, new: str, words: str
) -> None:
    exported(cli, "mine:build", "m.onnx")
    change(project / "mine.py", old, new)
    name, *more = command
    said = cli(name, "m.onnx", *more)
    assert said.code == (ExitCode.ERROR if words else ExitCode.DONE), said.err
    assert words in said.err
    assert ("export it again" in said.err) is bool(words)


def test_of_two_files_the_one_that_was_made_before_is_named(project: Path, cli: Cli) -> None:
    before = exported(cli, "mine:build", "old.onnx")
    change(project / "mine.py", "F.relu(", "torch.tanh(")
    after = exported(cli, "mine:build", "new.onnx")
    assert before["state_sha256"] == after["state_sha256"]
    assert len(before["probe"]) == 8
    said = cli("check", "new.onnx", "old.onnx", *DATA)
    assert said.code == ExitCode.ERROR
    assert "since old.onnx was made" in said.err
    assert cli("check", "new.onnx", *DATA).code == ExitCode.DONE


def test_a_sidecar_of_before_the_probe_is_still_read(project: Path, cli: Cli) -> None:
    exported(cli, "mine:build", "m.onnx")
    sidecar = project / "m.onnx.json"
    document = json.loads(sidecar.read_text())
    for name in ("state_sha256", "probe"):
        del document["model"][name]
    sidecar.write_text(json.dumps(document))
    assert cli("check", "m.onnx", *DATA).code == ExitCode.DONE


def test_a_model_is_checked_at_another_size_than_it_was_made_for(project: Path, cli: Cli) -> None:
    """The probe is of the recorded size, whatever --size says."""
    exported(cli, "mine:build", "m.onnx", "--size", 40)
    said = cli("bench", "m.onnx", "--size", 32, "--rounds", 5)
    assert "has changed" not in said.err


def test_a_run_makes_the_model_once(project: Path, cli: Cli) -> None:
    (project / "recipe.toml").write_text(RECIPE.replace("WEIGHTS", "random"))
    for _ in ("done", "reused"):
        forget()
        said = cli("run", "recipe.toml", "--out", "out")
        assert said.code == ExitCode.INCONCLUSIVE, said.err
        assert said.err.count("it is built") == 1
        assert said.err.count("the weights are those that mine:build made") == 1
    steps = json.loads((project / "out" / "results.json").read_text())["steps"]
    assert next(step["seconds"] for step in steps if step["kind"] == "build") > 0


def test_answers_may_differ_in_their_last_digits_alone() -> None:
    assert same_answers((1.0005, -2.001), (1.0, -2.0))
    assert not same_answers((1.003, -2.0), (1.0, -2.0))
    assert not same_answers((1.0,), (1.0, 0.0))
    assert not same_answers((float("nan"),), (1.0,))
    assert same_answers((0.0,), (0.0,))
