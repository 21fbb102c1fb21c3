"""Models that are not ours: timm's and torchvision's, and weights of a Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resdeploy.errors import (
    ExitCode,
    ResdeployError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from resdeploy.models.probe import state_digest
from resdeploy.models.reference import outline, resolve
from resdeploy.records import ModelOptions, Preprocess
from resdeploy.words import Interpolation
from tests.conftest import ROOT, Cli, python_without
from tests.models.loopback import Hub, Repository


def program(*arguments: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "resdeploy", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# --- timm and torchvision ---------------------------------------------------------------


def test_a_missing_extra_is_named() -> None:
    code = (
        "from resdeploy.cli.app import exit_code_of\n"
        "for name in ('timm:resnet50d', 'torchvision:resnet50'):\n"
        "    assert exit_code_of(['export', name]) == 2\n"
    )
    child = python_without(("timm", "torchvision"), code)
    assert child.returncode == 0, child.stderr
    assert "timm:resnet50d needs the package 'timm'" in child.stderr
    assert "torchvision:resnet50 needs the package 'torchvision'" in child.stderr
    assert child.stderr.count("pip install 'resdeploy[hub]'") == 2


def test_a_torchvision_of_another_torch_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    said = program("show", "torchvision:resnet18", cwd=tmp_path)
    assert said.returncode == ExitCode.ERROR
    assert "cannot import torchvision, which torchvision:resnet18 needs" in said.stderr
    assert f"here are torch {version('torch')}, " in said.stderr


@pytest.fixture
def timm_there() -> None:
    pytest.importorskip("timm", exc_type=ImportError)


@pytest.fixture
def torchvision_there() -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)


@pytest.mark.usefixtures("timm_there")
@pytest.mark.parametrize("reference", ["timm:resnet10t", "timm:resnet10t.c3_in1k"])
def test_timm_s_models_answer_as_timm_makes_them(reference: str) -> None:
    import timm

    before = torch.random.get_rng_state()
    model = resolve(reference, "random:3")
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = timm.create_model("resnet10t")
    assert state_digest(model.module) == state_digest(theirs)
    assert model.facts.reference == reference
    assert (model.facts.num_classes, model.facts.in_channels) == (1000, 3)
    expected = Preprocess(size=176, resize=201, crop=176, interpolation=Interpolation.BICUBIC)
    assert model.preprocess == expected
    assert not any(part.training for part in model.module.modules())
    assert model.fingerprint not in ("", resolve(reference, "random:4").fingerprint)


@pytest.mark.usefixtures("timm_there")
def test_timm_s_options_and_checkpoints(tmp_path: Path) -> None:
    asked = ModelOptions(num_classes=7, in_channels=1)
    model = resolve("timm:resnet10t", None, options=asked)
    assert (model.facts.num_classes, model.facts.in_channels) == (7, 1)
    assert "grey" in model.notes[-1]
    path = tmp_path / "w.safetensors"
    save_file(model.module.state_dict(), path)
    loaded = resolve("timm:resnet10t", path)
    assert (loaded.facts.num_classes, loaded.facts.in_channels) == (7, 1)
    assert state_digest(loaded.module) == state_digest(model.module)
    with pytest.raises(WeightsError, match="has num_classes 7, not 10"):
        resolve("timm:resnet10t", path, options=ModelOptions(num_classes=10))


@pytest.mark.usefixtures("torchvision_there")
def test_torchvision_s_models_answer_as_torchvision_makes_them(tmp_path: Path) -> None:
    import torchvision

    model = resolve("torchvision:squeezenet1_1", "random:3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = torchvision.models.squeezenet1_1()
    assert state_digest(model.module) == state_digest(theirs)
    assert model.preprocess == Preprocess(size=224, resize=256, crop=224)
    small = resolve("torchvision:mobilenet_v2", None, options=ModelOptions(num_classes=7))
    assert small.facts.num_classes == 7
    assert small.preprocess.resize == 232
    save_file(small.module.state_dict(), tmp_path / "w.safetensors")
    loaded = resolve("torchvision:mobilenet_v2", tmp_path / "w.safetensors")
    assert loaded.facts.num_classes == 7


@pytest.mark.usefixtures("timm_there", "torchvision_there")
@pytest.mark.parametrize(
    ("reference", "weights", "options", "kind", "said", "hint"),
    [
        ("timm:resnet50dd", None, {}, UnknownNameError, "model of timm 'resnet50dd'", "resnet50d"),
        ("timm:resnet50d.x", None, {}, UnknownNameError, "'resnet50d.x'", "resnet50d."),
        ("torchvision:resnt50", None, {}, UnknownNameError, "'resnt50'", "resnet50"),
        ("torchvision:fcn_resnet50", None, {}, UnknownNameError, "classifier of", "resnet50"),
        ("timm:resnet18", None, {"width": 0.5}, UsageError, "width is 0.5, but only", "leave"),
        ("timm:resnet18", None, {"output_stride": 8}, UsageError, "output_stride is 8", "leave"),
        ("torchvision:resnet18", None, {"in_channels": 1}, UsageError, "take 3 channels", "leave"),
        ("torchvision:resnet18", "own", {}, UsageError, "no weights of its own", "callable"),
        ("timm:resnet18", "torchvision:DEFAULT", {}, WeightsError, "torchvision has no", "hf:"),
        ("torchvision:resnet18", "torchvision:V2", {}, UnknownNameError, "weights of", "_V1"),
    ],
)
def test_what_timm_and_torchvision_do_not_have(
    reference: str,
    weights: str | None,
    options: dict[str, float],
    kind: type[ResdeployError],
    said: str,
    hint: str,
) -> None:
    with pytest.raises(kind) as raised:
        resolve(reference, weights, options=ModelOptions(**options))
    assert said in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.usefixtures("timm_there")
def test_an_external_model_goes_through_the_same_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("export", "timm:resnet10t", "--size", 64, "--num-classes", 10)
    assert said.code == ExitCode.DONE, said.err
    assert said.out == "timm-resnet10t.onnx\n"
    data = ("--data", "embedded:digits-evaluation", "--samples", 5, "--json")
    small = ("--size", 32, "--crop-pct", 1)
    assert cli("quantize", "timm:resnet10t", "--num-classes", 10, *data, *small).code == 0
    records = json.loads(cli("check", "timm-resnet10t-int8.onnx", *data).out)["drift"]
    assert records[0]["samples"] == 5
    assert outline("timm:resnet10t").facts.params > 5_000_000


# --- the Hub ----------------------------------------------------------------------------


@pytest.fixture
def digits_hub() -> Iterator[Hub]:
    """A Hub with the digits' weights and a record of how their images are prepared."""
    pytest.importorskip("huggingface_hub")
    weights = ROOT / "resdeploy/assets/digits/resnet20.safetensors"
    config = {"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5] * 3}}
    files = {
        "model.safetensors": weights.read_bytes(),
        "config.json": json.dumps(config).encode(),
    }
    repository = Repository(files, frozenset({"model.safetensors"}))
    with Hub({"me/digits": repository}).running() as hub:
        yield hub


def test_weights_of_a_repository_are_recorded_by_commit_and_found_again(
    tmp_path: Path, digits_hub: Hub
) -> None:
    commit = digits_hub.repositories["me/digits"].commit
    environ = {
        "HF_ENDPOINT": digits_hub.front.url("").rstrip("/"),
        "HF_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "*",
    }
    run: Callable[..., subprocess.CompletedProcess[str]] = program
    said = run(
        "export", "resnet20", "--weights", "hf:me/digits", "-o", "m.onnx", "--json",
        cwd=tmp_path, **environ,
    )  # fmt: skip
    assert said.returncode == ExitCode.DONE, said.stderr
    sidecar = json.loads(said.stdout)
    assert sidecar["model"]["weights"] == "hf:me/digits"
    assert sidecar["model"]["weights_origin"] == f"hf:me/digits@{commit}/model.safetensors"
    assert sidecar["model"]["trained"] is True
    assert sidecar["preprocess"]["mean"] == [0.5] * 3
    (branch,) = (tmp_path / "cache").rglob("refs/main")
    branch.unlink()  # as where it has moved on: only the commit leads to the weights now
    check = ("check", "m.onnx", "--data", "embedded:digits-evaluation", "--samples", 5, "--json")
    said = run(*check, cwd=tmp_path, HF_HUB_OFFLINE="1", **environ)
    assert said.returncode == ExitCode.DONE, said.stderr
    assert json.loads(said.stdout)["drift"][0]["flips"] == 0
