"""Files that appear whole or not at all, documents that are what they say, and the store."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from resdeploy.artifact import (
    Artifact,
    digest_of,
    open_artifact,
    publish,
    read_document,
    replacing,
    sha256_of_file,
    sidecar_path,
    write_text,
)
from resdeploy.errors import ArtifactError, OutputError
from resdeploy.pipeline.store import Store
from resdeploy.records import (
    Baseline,
    Check,
    Manifest,
    Preprocess,
    RunResult,
    TensorFacts,
)
from tests import factories


def manifest_for(path: Path) -> Manifest:
    tensor = TensorFacts(name="x", dtype="float", shape=("batch", 3, 8, 8))
    return Manifest(
        name="m",
        format="onnx",
        precision="fp32",
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
        opset=20,
        inputs=(tensor,),
        outputs=(tensor,),
        model=None,
        preprocess=Preprocess(size=8),
        verification=(Check(name="c", passed=False, value=np.inf, tolerance=0.1),),
        history=(),
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A finished file that waits for its name."""
    path = tmp_path / "scratch" / "made.onnx"
    path.parent.mkdir()
    path.write_bytes(b"graph" * 100)
    return path


# --- all or nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(5, "no")])
def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException] | BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fails() -> None:
        with replacing(path) as part:
            part.write_text("new, but not all of i")
            raise error

    expected = OutputError if isinstance(error, OSError) else error
    with pytest.raises(expected):  # type: ignore[arg-type]
        fails()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_replacement_makes_the_folder_and_takes_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for text in ("first", "second"):
        write_text(path, text)
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["file"]


def test_places_that_cannot_be_written(tmp_path: Path, made: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "file" / "x", "Not a directory|File exists"),
        (tmp_path / "file" / "x" / "y", "Not a directory"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(OutputError, match=reason) as raised:
            write_text(path, "text")
        assert raised.value.hint
        with pytest.raises(OutputError, match=reason):
            publish(made, path, manifest_for(made))
        assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "x", "text")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here; the test with a file size limit stands in")
    if mounted.returncode != 0:
        pytest.skip(f"{mounted.stderr.strip()}; the test with a file size limit stands in")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, made: Path) -> None:
    path = small_disk / "model.onnx"
    publish(made, path, manifest_for(made))
    before = {name: (small_disk / name).read_bytes() for name in os.listdir(small_disk)}
    made.write_bytes(b"x" * 200_000)
    with pytest.raises(OutputError, match="No space left on device") as raised:
        publish(made, path, manifest_for(made))
    assert "free some space" in raised.value.hint
    assert {name: (small_disk / name).read_bytes() for name in os.listdir(small_disk)} == before


def test_a_file_larger_than_may_be_written(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from resdeploy.artifact import write_text\n"
        "from resdeploy.errors import OutputError\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 100_000)\n"
        "except OutputError as error: print(error.message, '|', error.hint)"
    )
    path = tmp_path / "file"
    path.write_text("old")
    said = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    ).stdout
    assert said.startswith(f"cannot write {path}: File too large | ")
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


# --- artifacts and documents ------------------------------------------------------------


def test_an_artifact_and_its_sidecar_come_back(tmp_path: Path, made: Path) -> None:
    path = tmp_path / "out" / "model.onnx"
    manifest = manifest_for(made)
    published = publish(made, path, manifest)
    assert (
        published
        == open_artifact(path)
        == Artifact(path=path, sha256=sha256_of_file(made), manifest=manifest)
    )
    assert sorted(os.listdir(path.parent)) == ["model.onnx", "model.onnx.json"]
    assert manifest.verification[0].value == np.inf
    again = tmp_path / "again" / "model.onnx"
    publish(made, again, manifest)
    assert sidecar_path(again).read_bytes() == sidecar_path(path).read_bytes()


def test_altered_bytes_are_refused(tmp_path: Path, made: Path) -> None:
    path = tmp_path / "model.onnx"
    publish(made, path, manifest_for(made))
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="its sidecar was written for") as raised:
        open_artifact(path)
    assert "make it again" in raised.value.hint
    sidecar_path(path).unlink()
    assert open_artifact(path).manifest is None
    path.unlink()
    with pytest.raises(ArtifactError, match="is not a file"):
        open_artifact(path)


def accepted() -> Baseline:
    return factories.baseline()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "artifact"}, "is of kind 'artifact'; a 'baseline' document"),
        ({"kind": None}, "is of kind None"),
        ({"schema": 2}, "has schema 2; this resdeploy reads 1"),
        ({"schema": None}, "has schema None"),
        ({"machine": None}, "is not a valid baseline document: .*machine"),
        ({"extra": 1}, "is not a valid baseline document: .*extra"),
    ],
)
def test_documents_of_another_kind_or_schema_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    content = json.loads(accepted().to_json()) | changes
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(ArtifactError, match=f"(?s){said}"):
        read_document(path, Baseline)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe\x00"])
def test_what_is_no_document(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json is (not JSON|of kind)"):
        read_document(path, RunResult)
    with pytest.raises(ArtifactError, match="No such file"):
        read_document(tmp_path / "no.json", RunResult)
    with pytest.raises(ArtifactError, match="Is a directory"):
        read_document(tmp_path, RunResult)


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write_text(path, accepted().to_json())
    assert read_document(path, Baseline) == accepted()


def test_digests_are_of_values() -> None:
    assert digest_of({"a": 1, "b": [1.5, "é"]}) == digest_of({"b": [1.5, "é"], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})


# --- the store --------------------------------------------------------------------------

WORK = """
import sys, time
from pathlib import Path
from resdeploy.pipeline.store import Store
store = Store(Path(sys.argv[1]))
store.open()
with store.producing("key") as folder:
    (folder / "half").write_text("half of it")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "steps")
    opened.open()
    return opened


def test_a_step_appears_whole(store: Store) -> None:
    with store.producing("key") as folder:
        (folder / "file").write_text("all")
        assert not store.has("key")
    assert store.has("key")
    assert (store.path("key") / "file").read_text() == "all"
    assert os.listdir(store.folder) == ["key"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_step_leaves_nothing(store: Store, error: type[BaseException]) -> None:
    def fails() -> None:
        with store.producing("key") as folder:
            (folder / "file").write_text("half")
            raise error

    with pytest.raises(error):
        fails()
    assert not store.has("key")
    assert os.listdir(store.folder) == []


def test_a_killed_run_leaves_nothing_that_looks_finished(store: Store) -> None:
    command = [sys.executable, "-c", WORK, str(store.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            (working,) = os.listdir(store.folder)
            assert str(child.pid) in working
            store.open()  # another run while the first one lives: its work is let be
            assert (store.folder / working / "half").read_text() == "half of it"
        finally:
            child.send_signal(signal.SIGKILL)
    assert not store.has("key")
    assert os.listdir(store.folder) == [working]
    store.open()
    assert os.listdir(store.folder) == []


def test_leftovers_of_a_namesake_are_no_obstacle(store: Store) -> None:
    """In a container every run may have the same process id."""
    left = store.folder / f".working-{os.getpid()}-key"
    left.mkdir()
    (left / "old").write_text("left behind")
    with store.producing("key") as folder:
        (folder / "new").write_text("all")
    assert os.listdir(store.path("key")) == ["new"]


def test_of_two_runs_that_make_the_same_step_the_first_one_stays(store: Store) -> None:
    with store.producing("key") as folder:
        (folder / "file").write_text("second")
        first = store.path("key")
        first.mkdir()
        (first / "file").write_text("first")
    assert (first / "file").read_text() == "first"
    assert os.listdir(store.folder) == ["key"]


def test_a_store_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Store(tmp_path / "file" / "steps").open()
    never_opened = Store(tmp_path / "gone")
    with pytest.raises(OutputError, match="No such file"), never_opened.producing("key"):
        pass
