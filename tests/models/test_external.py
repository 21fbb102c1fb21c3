"""Models that are not ours: a user's own code, timm and torchvision, in real packages."""

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
from resdeploy.models.reference import LoadedModel, outline, resolve
from resdeploy.records import ModelOptions, Preprocess
from resdeploy.words import Interpolation, NormChoice
from tests.conftest import ROOT, Cli, python_without
from tests.models.loopback import Hub, Repository

NET = """
import sys
import torch
from torch import nn
print("user code speaks")

class Net(nn.Module):
    def __init__(self, num_classes=10, size=32):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.linear = nn.Linear(8 * (size // 2) ** 2, num_classes)
    def forward(self, x):
        print("its forward speaks", tuple(x.shape))
        return self.linear(self.model(x).relu().flatten(1))

def build(num_classes=10):
    net = Net(num_classes)
    net.preprocess = {"size": 32, "resize": 36, "crop": 32, "interpolation": "bicubic"}
    return net

def anything(**options):
    return build(**options)

def silent_about_images():
    return Net(size=224)

def for_small_images():
    return Net()

def trained():
    net, generator = build(), torch.Generator().manual_seed(7)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.02, generator=generator)
    return net

def timm_like():
    net = Net()
    net.pretrained_cfg = {"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bilinear"}
    return net

def recorded():
    from resdeploy.records import Preprocess
    net = Net()
    net.preprocess = Preprocess(size=32)
    return net

def badly_recorded():
    net = Net()
    net.preprocess = {"size": 32, "sise": 3}
    return net

def deaf(num_classes=3):
    net = Net()
    net.preprocess = {"size": 32}
    return net

def raises():
    raise ValueError("no luck")

def leaves():
    sys.exit(0)

def needs(path):
    return Net()

def state():
    return Net().state_dict()

def half():
    return Net().half()

def nowhere():
    with torch.device("meta"):
        return Net()

def features():
    return nn.Conv2d(3, 8, 3)

def pair():
    class Pair(Net):
        def forward(self, x):
            return x, x
    return Pair()

def squeezes():
    class Squeezes(Net):
        def forward(self, x):
            return super().forward(x).squeeze()
    return Squeezes(size=224)

def never_alone():
    class NeverAlone(Net):
        def forward(self, x):
            assert len(x) > 1, "no image comes alone"
            return super().forward(x)
    return NeverAlone(size=224)

def packed():
    class Packed(Net):  # as torch.ao.quantization packs integers
        def get_extra_state(self):
            return 8, "packed"
    return Packed()

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.stem = nn.Conv2d(8, 10, 1), nn.Conv2d(3, 8, 3)
        self.preprocess = {"size": 32}
    def forward(self, x):
        return self.head(self.stem(x)).mean((2, 3))

def of_four_channels():
    return nn.Sequential(nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), True), self.bias)

def standardised():
    net = build()
    net.model[0] = Standardised(3, 8, 3, stride=2, padding=1)
    return net

def weight_normed():
    net = build()
    torch.nn.utils.parametrizations.weight_norm(net.model[0])
    return net

class Late(Net):
    def forward(self, x):
        import late
        return super().forward(x) * late.SCALE

def imports_late():
    net = Late()
    net.preprocess = {"size": 32}
    return net

made = Net()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package `theirs`, which is the working directory."""
    folder = tmp_path / "project"
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs" / "mymodel.py").write_text(NET)
    (folder / "theirs" / "unsound.py").write_text("import a_package_that_is_not_there")
    (folder / "late.py").write_text("SCALE = 2")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    forget()


def forget() -> None:
    """What a new process would not have: the modules of the project."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("theirs", "late")]:
        del sys.modules[name]


def theirs(name: str, weights: str | None = None, **more: int) -> LoadedModel:
    return resolve(f"theirs.mymodel:{name}", weights, **more)


def program(*arguments: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "resdeploy", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# --- package.module:callable ------------------------------------------------------------


def test_a_callable_gives_a_seeded_module_that_is_not_called_trained(project: Path) -> None:
    before, path = torch.random.get_rng_state(), list(sys.path)
    model = theirs("build", seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sys.path == [*path, str(project)]  # for what it imports when it runs
    facts = model.facts
    assert (facts.reference, facts.weights) == ("theirs.mymodel:build", "random:4")
    assert (facts.trained, facts.weights_sha256) == (False, None)
    assert (facts.num_classes, facts.in_channels) == (10, 3)
    assert model.trainable == facts.params == sum(p.numel() for p in model.module.parameters())
    assert not any(part.training for part in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    said = "\n".join(model.notes)
    assert "--weights own" in said
    assert str(project / "theirs" / "mymodel.py") in said
    digests = [state_digest(theirs("build", f"random:{seed}").module) for seed in (4, 4, 5)]
    assert digests[0] == digests[1] == state_digest(model.module) != digests[2]


def test_what_user_code_prints_is_not_taken_for_the_product(project: Path, cli: Cli) -> None:
    said = cli("export", "theirs.mymodel:build", "--json")
    assert said.code == ExitCode.DONE, said.err
    assert json.loads(said.out)["path"] == "theirs.mymodel-build.onnx"
    assert "user code speaks" in said.err
    assert "its forward speaks (1, 3, 32, 32)" in said.err
    checked = cli("check", "theirs.mymodel-build.onnx", "--data", "synthetic:2", "--json")
    assert json.loads(checked.out)["drift"][0]["flips"] == 0
    shown = json.loads(cli("show", "theirs.mymodel:build", "--json").out)
    assert [row["name"] for row in shown["layers"]] == ["", "model", "model.0", "model.1", "linear"]


@pytest.mark.parametrize("name", ["build", "anything"])
def test_options_are_handed_to_a_callable_that_takes_them(project: Path, name: str) -> None:
    model = resolve(f"theirs.mymodel:{name}", None, options=ModelOptions(num_classes=3))
    assert model.facts.num_classes == 3
    assert model.facts.options.num_classes == 3


@pytest.mark.parametrize(
    ("name", "options", "kind", "said"),
    [
        ("build", ModelOptions(in_channels=1), UsageError, "takes no such argument"),
        ("build", ModelOptions(norm=NormChoice.GROUP), UsageError, "norm is group, but only"),
        ("deaf", ModelOptions(num_classes=3), UsageError, "has num_classes 10, though it was"),
        ("anything", ModelOptions(in_channels=1), ResdeployError, "raised TypeError"),
    ],
)
def test_options_that_a_callable_cannot_honour_are_refused(
    project: Path, name: str, options: ModelOptions, kind: type[ResdeployError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        resolve(f"theirs.mymodel:{name}", None, options=options)


@pytest.mark.parametrize(
    ("reference", "kind", "said", "hint"),
    [
        ("theirs.mymodel:raises", ResdeployError, "its code raised ValueError: no luck", "--debug"),
        ("theirs.mymodel:leaves", ResdeployError, "its code raised SystemExit", "--debug"),
        ("theirs.mymodel:needs", ResdeployError, "raised TypeError: needs() missing", "--debug"),
        ("theirs.unsound:build", ResdeployError, "a_package_that_is_not_there", "what it needs"),
        ("theirs.mymodel:buidl", UnknownNameError, "callable of theirs.mymodel 'buidl'", "build"),
        ("theirs.mymodle:build", UsageError, "there is no module theirs.mymodle", "install it"),
        ("theirs.mymodel.py:build", UsageError, "no module", "theirs.mymodel:build"),
        ("torchvison:resnet50", UsageError, "no module torchvison", "torchvision:resnet50?"),
        ("theirs.mymodel:made", UsageError, "is a Net, not a function", "def build"),
        ("theirs.mymodel:NET", UnknownNameError, "'NET'", "Net"),
        ("theirs.mymodel:state", UsageError, "returned a OrderedDict, not a torch", "state_dict"),
        ("theirs.mymodel:half", UsageError, "tensors that are not float32: model", "float()"),
        ("theirs.mymodel:nowhere", UsageError, "on the meta device", "with its weights"),
        ("theirs.mymodel:features", UsageError, "a tensor [1, 8, 222, 222]; logits", "classif"),
        ("theirs.mymodel:squeezes", UsageError, "one image with a tensor [10]", ".squeeze()"),
        ("theirs.mymodel:never_alone", ResdeployError, "[1, 3, 224, 224]: it raised Asser", "size"),
        ("theirs.mymodel:packed", UsageError, "are no tensors: _extra_state (tuple)", "float mod"),
        ("theirs.mymodel:pair", UsageError, "with a tuple; logits", "classifiers"),
        ("theirs.mymodel:for_small_images", ResdeployError, "cannot take images", "--size"),
        ("theirs.mymodel:badly_recorded", UsageError, "preprocess of theirs.mymodel", "crop"),
    ],
)
def test_code_that_gives_no_model_is_said_to_be_theirs(
    project: Path, reference: str, kind: type[ResdeployError], said: str, hint: str
) -> None:
    with pytest.raises(kind) as raised:
        resolve(reference, None)
    assert type(raised.value) is kind
    assert said in raised.value.message
    assert hint in raised.value.hint
    assert sys.path[0] != str(project)


def test_the_size_that_is_asked_for_is_the_one_that_is_tried(project: Path, cli: Cli) -> None:
    assert theirs("for_small_images", size=32).facts.num_classes == 10
    said = cli("export", "theirs.mymodel:for_small_images", "--size", 32, "-o", "m.onnx")
    assert said.code == ExitCode.DONE, said.err
    assert cli("bench", "m.onnx", "--rounds", 5).code == ExitCode.DONE


def test_what_a_module_imports_when_it_runs_is_found(project: Path, cli: Cli) -> None:
    said = cli("export", "theirs.mymodel:imports_late", "-o", "m.onnx")
    assert said.code == ExitCode.DONE, said.err


def test_the_channels_are_those_of_the_declared_images(project: Path) -> None:
    """Else those of the first convolution, which is not always the one that runs first."""
    assert theirs("HeadFirst").facts.in_channels == 3
    assert theirs("of_four_channels").facts.in_channels == 4


@pytest.mark.parametrize("name", ["standardised", "weight_normed"])
def test_weights_that_are_computed_may_come_before_a_batchnorm(
    project: Path, cli: Cli, name: str
) -> None:
    said = cli("export", f"theirs.mymodel:{name}", "-o", "m.onnx")
    assert said.code == ExitCode.DONE, said.err


def test_images_are_prepared_as_the_module_says(project: Path) -> None:
    assert theirs("build").preprocess == Preprocess(
        size=32, resize=36, crop=32, interpolation=Interpolation.BICUBIC
    )
    assert theirs("recorded").preprocess == Preprocess(size=32)
    assert theirs("timm_like").preprocess == Preprocess(size=32, resize=40, crop=32)
    usual = theirs("silent_about_images")
    assert usual.preprocess == Preprocess(size=224, resize=256, crop=224)
    assert "does not say how its images are prepared" in usual.notes[-1]
    assert not any("does not say" in note for note in theirs("build").notes)


def test_own_weights_do_not_depend_on_the_seed_of_a_recipe(project: Path) -> None:
    """`check` knows no recipe, and has to make the same module from the sidecar."""
    one, two = (resolve("theirs.mymodel:build", "own", seed=seed) for seed in (0, 1))
    assert one.facts.weights_sha256 == two.facts.weights_sha256


def test_weights_in_a_file_are_loaded_key_by_key(project: Path) -> None:
    """Even where the module's own names look like a wrapper's or an old one's."""
    source = theirs("trained", "own")
    save_file(source.module.state_dict(), "w.safetensors")
    model = theirs("build", "w.safetensors")
    assert model.facts.trained
    assert state_digest(model.module) == state_digest(source.module)
    with pytest.raises(WeightsError, match=r"does not fit theirs\.mymodel:silent"):
        theirs("silent_about_images", "w.safetensors")
    with pytest.raises(WeightsError, match="nobody knows of pretrained weights"):
        theirs("build", "pretrained")


def test_a_digest_depends_on_names_kinds_shapes_and_values() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return state_digest(module)

    one, flat = torch.ones(2, 3), torch.ones(6)
    different = [
        digest(a=one), digest(b=one), digest(a=flat), digest(a=one.int()), digest(a=-one),
        digest(a=one, b=flat), digest(b=flat, a=one), digest(a=torch.tensor(1.0)),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert digest(a=one) == digest(a=torch.ones(3, 2).T)


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
