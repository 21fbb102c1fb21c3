"""onnxsim in a child process, and children that misbehave in every way we know of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from resdeploy.artifact import Artifact, sha256_of_file
from resdeploy.errors import ChildFailedError
from resdeploy.graph.files import read_model
from resdeploy.graph.simplify import SIMPLIFIERS, Limits, Simplifier, SimplifierChild
from resdeploy.graph.summary import summary_of
from resdeploy.models.reference import resolve
from resdeploy.pipeline.make_export import export_file
from resdeploy.pipeline.make_simplified import simplify_file
from resdeploy.records import Manifest
from tests.graph import tools

CHILDREN = "tests.graph.children"


@dataclass(frozen=True)
class Exported:
    artifact: Artifact
    manifest: Manifest


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A resnet20 with its manifest; tests must not change it."""
    path = tmp_path_factory.mktemp("exported") / "resnet20.onnx"
    loaded = resolve("resnet20", None)
    manifest = export_file(tools.exporting(loaded), path)
    return Exported(Artifact(path=path, sha256=manifest.sha256, manifest=manifest), manifest)


@pytest.fixture(autouse=True)
def _importable_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def simplify_in_child(
    source: Path, result: Path, *, module: str, limits: Limits | None = None
) -> bool:
    row = Simplifier(name="child", package="onnx", module=module)
    with SimplifierChild(row, limits) as child:
        child.start(source, result)
        return child.changed()


def ended(path: Path) -> bool:
    """Whether the processes whose ids are in a file are gone, or will be at once."""
    pids = [int(pid) for pid in path.read_text().split()]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_onnxsim_keeps_the_answers_and_drops_nodes(exported: Exported, tmp_path: Path) -> None:
    heard: list[str] = []
    source, result = exported.artifact.path, tmp_path / "simplified.onnx"
    manifest = simplify_file(exported.artifact, exported.manifest, result, notify=heard.append)
    assert heard == []
    assert manifest.history[-1].notes[-1] == "onnxsim"
    assert manifest.sha256 == sha256_of_file(result)
    assert summary_of(read_model(result)).nodes < summary_of(read_model(source)).nodes
    images = tools.noise(3, 3, 32, 32)
    np.testing.assert_allclose(
        tools.answer(result, images), tools.answer(source, images), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("crashes", r"was killed by SIGSEGV: it said nothing"),
        ("writes_nothing", r"ended well but wrote no file"),
        ("exits_3", r"failed with exit code 3: no such operator"),
        ("is_not_there", r"failed with exit code 1: .*No module named"),
    ],
)
def test_a_child_that_fails_is_named(tmp_path: Path, child: str, said: str) -> None:
    with pytest.raises(ChildFailedError, match=said):
        simplify_in_child(tmp_path / "in.onnx", tmp_path / "out.onnx", module=f"{CHILDREN}.{child}")


@pytest.mark.parametrize(
    ("child", "said"),
    [("hangs", "ran longer than 3 s and was stopped"), ("leaves_helper", "wrote no file")],
)
def test_the_end_of_a_child_is_that_of_all_it_started(
    tmp_path: Path, child: str, said: str
) -> None:
    result = tmp_path / "out.onnx"
    start = time.monotonic()
    with pytest.raises(ChildFailedError, match=said):
        simplify_in_child(
            tmp_path / "in.onnx",
            result,
            module=f"{CHILDREN}.{child}",
            limits=Limits(timeout_s=3),
        )
    assert time.monotonic() - start < 30
    assert ended(Path(f"{result}.pids"))


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("crashes", "SIGSEGV"),
        ("writes_nothing", "wrote no file"),
        ("writes_rubbish", "not a valid ONNX model"),
        ("freezes_batch", "agreement-batch-3"),
        ("changes_weight", "agreement-batch-1 is "),
        ("renames_output", "same-inputs-outputs"),
    ],
)
def test_a_bad_simplification_is_not_used_and_everybody_is_told(
    exported: Exported, tmp_path: Path, child: str, said: str
) -> None:
    bad = Simplifier(name="bad", package="onnx", module=f"{CHILDREN}.{child}")
    heard: list[str] = []
    result = tmp_path / "simplified.onnx"
    manifest = simplify_file(
        exported.artifact, exported.manifest, result, notify=heard.append, simplifiers=(bad,)
    )
    assert manifest.sha256 == sha256_of_file(result)
    *_, note, used = manifest.history[-1].notes
    assert note.startswith("bad was not used: ")
    assert said in note
    assert used == "the passes alone"
    assert heard == [note]
    assert all(check.passed for check in manifest.verification)


def test_where_one_simplifier_fails_the_next_one_takes_over(
    exported: Exported, tmp_path: Path
) -> None:
    bad = Simplifier(name="bad", package="onnx", module=f"{CHILDREN}.changes_weight")
    onnxscript = SIMPLIFIERS["onnxscript's optimizer"]
    heard: list[str] = []
    result = tmp_path / "simplified.onnx"
    manifest = simplify_file(
        exported.artifact,
        exported.manifest,
        result,
        notify=heard.append,
        simplifiers=(bad, onnxscript),
    )
    assert manifest.history[-1].notes[-1] == onnxscript.name
    assert "onnxscript" in manifest.history[-1].tools
    assert len(heard) == 1
    operators = summary_of(read_model(result)).operators
    assert not {"Identity", "Constant", "BatchNormalization"} & set(operators)


@pytest.mark.parametrize("row", SIMPLIFIERS, ids=lambda row: row.name)
def test_a_simplifier_that_wants_too_much_memory_is_stopped(
    exported: Exported, tmp_path: Path, row: Simplifier
) -> None:
    limits = Limits(memory_bytes=1 << 20)
    with pytest.raises(ChildFailedError, match=r"failed with exit code|killed by"):
        simplify_in_child(
            exported.artifact.path, tmp_path / "out.onnx", module=row.module, limits=limits
        )
