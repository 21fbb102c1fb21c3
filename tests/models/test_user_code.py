"""A user's own code as package.module:callable, in a real package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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
from resdeploy.models.reference import resolve
from resdeploy.records import ModelOptions, Preprocess
from resdeploy.words import Interpolation, NormChoice
from tests.conftest import Cli
from tests.models.user_code import NET, forget, theirs


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
