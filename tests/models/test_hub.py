from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.contracts import silent
from resdeploy.errors import UsageError, WeightsError
from resdeploy.models.weights.hub import fetch_hub, prepared, preprocess_of
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder, Interpolation
from tests.conftest import ROOT
from tests.models.loopback import (
    Handler,
    Hub,
    Loopback,
    Manner,
    Repository,
    keeps_silent,
    refuses,
)

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed"
)
TOKEN = "hf_secret"
BODY = random.Random(1).randbytes(2_500_000)
SMALL = b"small enough for git"
CONFIG = json.dumps({"architecture": "resnet50", "pretrained_cfg": {"crop_pct": 0.95}}).encode()
PREPARED = Preprocess(
    size=224, resize=235, crop=224, interpolation=Interpolation.BICUBIC
).model_dump(mode="json")
LARGE = {"model.safetensors"}


def plain(**more: Any) -> Repository:
    """A repository as timm makes them."""
    files = {"README.md": b"# hi", "config.json": CONFIG, "model.safetensors": BODY}
    return Repository(files, large=frozenset({"model.safetensors"}), **more)


# The client reads its environment when it is imported, so each environment has a process.
CHILD = """
import json, sys
from dataclasses import asdict
from resdeploy.errors import ResdeployError
from resdeploy.models.weights.hub import fetch_hub
from tests.models.loopback import Watched
def plainly(item):
    return item.model_dump(mode="json") if hasattr(item, "model_dump") else str(item)
for line in sys.stdin:
    watched = Watched()
    try:
        said = asdict(fetch_hub(json.loads(line), progress=watched))
    except ResdeployError as error:
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    said["loops"] = [(loop.label, loop.total, loop.done, loop.closed) for loop in watched.loops]
    print(json.dumps(said, default=plainly), flush=True)
"""


class Client:
    """A process that fetches what it is told to."""

    def __init__(self, endpoint: str, home: Path, **environ: str) -> None:
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
        }
        given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", **environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=ROOT,
            env=kept | given,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fetch(self, reference: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(reference) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.process.communicate()[1]
        said: dict[str, Any] = json.loads(answer)
        return said

    def stop(self) -> str:
        """What it wrote to stderr."""
        return self.process.communicate(timeout=30)[1]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub({}).running() as small:
        yield small


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def client(hub: Hub, home: Path) -> Iterator[Client]:
    """A client that is logged in. Tests share it and its cache, and each has its own names."""
    process = Client(hub.front.url("").rstrip("/"), home, HF_TOKEN=TOKEN)
    yield process
    process.stop()


@pytest.fixture
def another(hub: Hub, home: Path) -> Iterator[Callable[..., Client]]:
    """Clients in other environments, with the same cache unless they are given another."""
    clients: list[Client] = []

    def start(**environ: str) -> Client:
        environ = {"HF_HOME": str(home), **environ}
        endpoint = environ.pop("HF_ENDPOINT", hub.front.url("").rstrip("/"))
        clients.append(Client(endpoint, Path(environ.pop("HF_HOME")), **environ))
        return clients[-1]

    yield start
    for process in clients:
        process.stop()


# --- a Hub that behaves well ------------------------------------------------------------


@needs_client
def test_weights_come_verified_with_their_record(hub: Hub, client: Client, home: Path) -> None:
    repository = hub.repositories["o/whole"] = plain()
    before = len(hub.cdn.log)
    said = client.fetch("o/whole")
    assert Path(said["path"]).read_bytes() == BODY
    assert Path(said["path"]).is_relative_to(home)
    assert said["repo"] == "o/whole"
    assert said["revision"] == repository.commit
    assert said["file"] == "model.safetensors"
    assert said["preprocess"] == PREPARED
    assert said["notes"] == []
    assert said["loops"] == [["downloading model.safetensors of hf:o/whole (MiB)", 3, 3, True]]
    assert client.fetch("o/whole")["path"] == said["path"]
    assert [asked.method for asked in hub.cdn.log[before:]] == ["GET"]


@needs_client
def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: Hub, client: Client) -> None:
    hub.repositories["o/mine"] = plain(token=TOKEN)
    before = len(hub.cdn.log)
    assert client.fetch("o/mine")["preprocess"] == PREPARED
    (asked,) = hub.cdn.log[before:]
    assert "authorization" not in asked.headers
    assert asked.headers["host"].startswith("localhost:")


@needs_client
def test_nothing_is_drawn_but_through_progress(
    hub: Hub, another: Callable[..., Client], tmp_path: Path
) -> None:
    hub.repositories["o/drawn"] = plain()
    fresh = another(HF_HOME=str(tmp_path))
    assert "error" not in fresh.fetch("o/drawn")
    assert fresh.stop() == ""


@needs_client
@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/7", Repository({}).commit])
def test_a_branch_a_tag_or_a_commit(hub: Hub, client: Client, revision: str) -> None:
    hub.repositories["o/revised"] = plain(branches=("main", "v1", "refs/pr/7"))
    assert client.fetch(f"o/revised@{revision}")["revision"] == Repository({}).commit


@needs_client
def test_a_cut_connection_is_taken_up_where_it_ended(hub: Hub, client: Client) -> None:
    """The client keeps whole chunks of 10 MiB."""
    body, chunk = BODY * 5, 10 * 2**20
    hub.repositories["o/cut"] = Repository({"a.pth": body}, large=frozenset({"a.pth"}))
    hub.cut_after = 12_000_000
    before = len(hub.cdn.log)
    said = client.fetch("o/cut")
    first, second = hub.cdn.log[before:]
    assert Path(said["path"]).read_bytes() == body
    assert (first.sent, second.sent) == (12_000_000, len(body) - chunk)
    assert second.headers["range"] == f"bytes={chunk}-"
    assert [loop[1:] for loop in said["loops"]] == [[12, 12, True]]


@needs_client
def test_a_repository_without_a_config(hub: Hub, client: Client) -> None:
    hub.repositories["o/bare"] = Repository({"model.safetensors": SMALL})
    assert client.fetch("o/bare")["preprocess"] is None


def with_record(**record: Any) -> Repository:
    """A repository whose config.json says this."""
    config = json.dumps({"pretrained_cfg": record}).encode()
    return Repository({"model.safetensors": BODY, "config.json": config}, frozenset(LARGE))


@needs_client
def test_another_way_to_crop_is_said_and_not_done(hub: Hub, client: Client) -> None:
    hub.repositories["o/squash"] = with_record(crop_pct=0.95, crop_mode="squash")
    said = client.fetch("o/squash")
    assert said["preprocess"] == PREPARED
    assert said["notes"] == ["hf:o/squash prepares images by squash; here their centre is cut out"]


RESOLVED = """
from resdeploy.models.reference import resolve
model = resolve("resnet20", "hf:o/digits")
print(model.preprocess.resize, model.facts.weights_origin, *model.notes, sep="\\n")
"""


@needs_client
def test_the_record_and_its_note_reach_the_model(hub: Hub, tmp_path: Path) -> None:
    weights = (ROOT / "resdeploy/assets/digits/resnet20.safetensors").read_bytes()
    record = {"input_size": [3, 32, 32], "crop_pct": 0.5, "crop_mode": "border"}
    config = json.dumps({"pretrained_cfg": record}).encode()
    repository = Repository({"model.safetensors": weights, "config.json": config})
    hub.repositories["o/digits"] = repository
    said = subprocess.run(
        [sys.executable, "-c", RESOLVED],
        env=os.environ
        | {"HF_ENDPOINT": hub.front.url("").rstrip("/"), "HF_HOME": str(tmp_path), "NO_PROXY": "*"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said == [
        "64",
        f"hf:o/digits@{repository.commit}/model.safetensors",
        "hf:o/digits prepares images by border; here their centre is cut out",
    ]


@needs_client
def test_weights_whose_record_cannot_be_followed_are_not_downloaded(
    hub: Hub, client: Client
) -> None:
    hub.repositories["o/oblong"] = with_record(input_size=[3, 224, 240])
    before = len(hub.cdn.log)
    said = client.fetch("o/oblong")
    assert said["error"] == "WeightsError"
    assert "an input of 3 × 224 × 240" in said["message"]
    assert len(hub.cdn.log) == before


# --- which file is taken ----------------------------------------------------------------


@needs_client
@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["pytorch_model.bin", "model.safetensors", "model.pth"], "model.safetensors"),
        (["model.pth", "pytorch_model.bin"], "pytorch_model.bin"),
        (["model.pth", "other.safetensors"], "model.pth"),
        (["weights.safetensors", "a.pth", "b.bin"], "weights.safetensors"),
        (["resnet50.th", "notes.txt"], "resnet50.th"),
        (["fp16/model.safetensors", "mine.pt"], "mine.pt"),
        (["model.safetensors", "pytorch_model.bin.index.json"], "model.safetensors"),
        (["README.md", "model.ckpt"], "model.ckpt"),
        (["resnet18.pdparams"], "resnet18.pdparams"),
        (["model_best.pth.tar"], "model_best.pth.tar"),
        (["MODEL.PTH"], "MODEL.PTH"),
        (
            ["a.ckpt", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"],
            "a.ckpt",
        ),
        (["a.pth", "b\n.pth"], "a.pth"),
    ],
)
def test_the_file_that_is_taken(hub: Hub, client: Client, names: list[str], taken: str) -> None:
    name = f"o/takes-{abs(hash(tuple(names)))}"
    hub.repositories[name] = Repository({file: SMALL + file.encode() for file in names})
    said = client.fetch(name)
    assert (said["file"], Path(said["path"]).read_bytes()) == (taken, SMALL + taken.encode())


@needs_client
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.safetensors", "b.safetensors", "c.pth"], "several files .*: a.safetensors, b.safe"),
        (["a.pth", "b.ckpt"], "several files .*: a.pth, b.ckpt"),
        (["training_args.bin"], "no weights that can be read, but training_args.bin"),
        (["w\x1b[31m.onnx"], r"no weights that can be read, but w\\x1b\[31m.onnx"),
        (
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json"],
            "weights in several parts: model-00001",
        ),
        (["README.md", "model.onnx"], "no weights that can be read, but README.md, model.onnx"),
        (["fp16/model.safetensors"], "no weights that can be read, but fp16/model.safetensors"),
        ([], "no weights that can be read, but nothing"),
    ],
)
def test_no_file_is_taken_by_guess(
    hub: Hub, client: Client, names: list[str], message: str
) -> None:
    name = f"o/refuses-{abs(hash(tuple(names)))}"
    hub.repositories[name] = Repository(dict.fromkeys(names, SMALL))
    said = client.fetch(name)
    assert said["error"] == "WeightsError"
    assert re.match(f"hf:{name} holds {message}", said["message"])
    assert said["hint"]


# --- a Hub that refuses, or sends something else ----------------------------------------


@needs_client
@pytest.mark.parametrize(
    ("reference", "repository", "message", "hint"),
    [
        ("o/absent", None, "it is not there, or private", "hf auth login"),
        ("o/theirs", plain(token="another"), "it is not there, or private", "HF_TOKEN"),
        ("o/gated", plain(gated=True), "its owners let in whom they know", "ask for access"),
        ("o/old@v9", plain(), "it has no such revision", "@REVISION"),
    ],
)
def test_a_refusal_has_a_remedy(
    hub: Hub,
    client: Client,
    reference: str,
    repository: Repository | None,
    message: str,
    hint: str,
) -> None:
    if repository:
        hub.repositories[reference.partition("@")[0]] = repository
    said = client.fetch(reference)
    endpoint = hub.front.url("").rstrip("/")
    assert said["error"] == "DownloadError"
    assert said["message"] == f"cannot fetch hf:{reference} from {endpoint}: {message}"
    assert hint in said["hint"]


@needs_client
def test_other_bytes_than_the_hub_announced(hub: Hub, client: Client) -> None:
    wrong = bytes(len(BODY))
    repository = hub.repositories["o/wrong"] = plain(on_wire={"model.safetensors": wrong})
    said = client.fetch("o/wrong")
    assert said["error"] == "DownloadError"
    assert f"not {repository.sha256('model.safetensors')}" in said["message"]
    assert "delete" in said["hint"]
    again = client.fetch("o/wrong")
    assert again["message"] == said["message"]  # it is never used, however often


@needs_client
@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (b"{", "WeightsError", "config.json of hf:o/config-0 is no JSON"),
        (b"[1]", "WeightsError", "config.json of hf:o/config-1 holds a list, not an object"),
    ],
)
def test_a_config_that_says_nothing_readable(
    hub: Hub, client: Client, config: bytes, error: str, message: str
) -> None:
    name = message.split("hf:")[1].split()[0]
    hub.repositories[name] = Repository({"model.safetensors": SMALL, "config.json": config})
    said = client.fetch(name)
    assert said["error"] == error
    assert said["message"].startswith(message)


def silent_about_models(handler: Handler) -> None:
    """The client first asks something else, with a patience of its own."""
    (keeps_silent if "/models/" in handler.path else refuses(404))(handler)


@needs_client
@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(refuses(200), id="page"),
        pytest.param(refuses(404), id="404"),
        pytest.param(refuses(500), id="500"),
        pytest.param(silent_about_models, id="silence"),
    ],
)
def test_a_hub_that_is_none(another: Callable[..., Client], tmp_path: Path, manner: Manner) -> None:
    with Loopback(manner) as server:
        endpoint = server.url("").rstrip("/")
        lost = another(HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint, HF_HUB_DOWNLOAD_TIMEOUT="1")
        said = lost.fetch("o/none")
    assert said["error"] == "DownloadError"
    assert said["message"].startswith(f"cannot fetch hf:o/none from {endpoint}: ")
    assert "HF_HUB_OFFLINE=1" in said["hint"]
    assert lost.fetch("o/none")["error"] == "DownloadError"  # and now nobody is there


@needs_client
def test_an_older_commit_is_not_taken_for_the_one_of_today(hub: Hub, client: Client) -> None:
    """The client falls back to what is cached where the Hub has only half an answer."""
    old = hub.repositories["o/moved"] = plain()
    assert "error" not in client.fetch("o/moved")
    hub.repositories["o/moved"] = plain(commit="f" * 40)
    hub.ill = frozenset(LARGE)
    said = client.fetch("o/moved")
    hub.ill = frozenset()
    assert said["error"] == "DownloadError"
    assert "f" * 40 in said["message"]
    assert old.commit in said["message"]


# --- the cache --------------------------------------------------------------------------


@needs_client
def test_offline_what_is_cached_is_used_and_the_rest_is_named(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    hub.repositories["o/kept"] = plain(branches=("main", "v1"))
    hub.repositories["o/bare-kept"] = Repository({"model.pth": SMALL})
    kept = client.fetch("o/kept")
    bare = client.fetch("o/bare-kept")
    for said in (kept, bare):
        assert said.pop("loops")
    asked = len(hub.front.log)
    offline = another(HF_HUB_OFFLINE="1")
    for reference, wanted in (
        ("o/kept", kept),
        (f"o/kept@{Repository({}).commit}", kept),
        ("o/bare-kept", bare),
    ):
        said = offline.fetch(reference)
        assert said.pop("loops") == []
        assert said == wanted
    for reference in ("o/kept@v1", "o/never-seen"):
        said = offline.fetch(reference)
        assert said["error"] == "DownloadError"
        assert said["message"].startswith(f"hf:{reference} is not in ")
        assert "HF_HUB_OFFLINE" in said["message"]
    assert len(hub.front.log) == asked


@needs_client
def test_offline_a_config_that_was_never_asked_for_is_not_taken_to_be_absent(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    hub.repositories["o/half"] = plain()
    snapshot = Path(client.fetch("o/half")["path"]).parent
    (snapshot / "config.json").unlink()
    said = another(HF_HUB_OFFLINE="1").fetch("o/half")
    assert said["error"] == "DownloadError"
    assert said["message"] == "nothing is known offline about the config.json of hf:o/half"


@needs_client
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_file_in_the_cache(
    hub: Hub, client: Client, another: Callable[..., Client], file: str
) -> None:
    """The weights are in LFS, known by their sha256; the config is in git, by its sha1."""
    name = f"o/damaged-{file.partition('.')[0]}"
    hub.repositories[name] = plain()
    blob = (Path(client.fetch(name)["path"]).parent / file).resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    for process in (client, another(HF_HUB_OFFLINE="1")):
        said = process.fetch(name)
        assert said["error"] == "DownloadError"
        assert f"not {blob.name}" in said["message"]
        assert said["hint"] == f"delete {blob} and run it again"
    blob.unlink()
    assert "error" not in client.fetch(name)


@needs_client
def test_online_the_hub_says_which_hash_is_right(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    """A file whose name in the cache is its own hash may still be another than the Hub's."""
    repository = hub.repositories["o/swapped"] = plain()
    path = Path(client.fetch("o/swapped")["path"])
    other = bytes(len(BODY))
    blob = path.resolve().with_name(hashlib.sha256(other).hexdigest())
    blob.write_bytes(other)
    path.unlink()
    path.symlink_to(os.path.relpath(blob, path.parent))
    said = client.fetch("o/swapped")
    assert said["error"] == "DownloadError"
    assert f"has the hash {blob.name}, not {repository.sha256(path.name)}" in said["message"]
    assert said["hint"] == f"delete {blob} and run it again"
    blob.unlink()
    assert Path(client.fetch("o/swapped")["path"]).read_bytes() == BODY


@needs_client
def test_weights_that_cannot_be_read(hub: Hub, client: Client) -> None:
    hub.repositories["o/unreadable"] = plain()
    path = Path(client.fetch("o/unreadable")["path"])
    path.resolve().unlink()
    path.resolve().symlink_to("/proc/self/mem")  # nobody, root included, can read its first byte
    said = client.fetch("o/unreadable")
    assert said["error"] == "DownloadError"
    assert said["message"].startswith(f"cannot read {path}: ")


@needs_client
def test_a_cache_without_symbolic_links(
    hub: Hub, another: Callable[..., Client], tmp_path: Path
) -> None:
    repository = hub.repositories["o/unlinked"] = plain()
    environ = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_SYMLINKS": "1"}
    said = another(**environ).fetch("o/unlinked")
    assert Path(said["path"]).read_bytes() == repository.files["model.safetensors"]
    assert not Path(said["path"]).is_symlink()
    offline = another(**environ, HF_HUB_OFFLINE="1").fetch("o/unlinked")
    assert offline["error"] == "DownloadError"
    assert "cannot be verified" in offline["message"]


@needs_client
def test_a_cache_that_cannot_be_made(
    hub: Hub, another: Callable[..., Client], tmp_path: Path
) -> None:
    hub.repositories["o/nowhere"] = plain()
    (tmp_path / "file").write_text("")
    said = another(HF_HOME=str(tmp_path / "file" / "home")).fetch("o/nowhere")
    assert said["error"] == "OutputError"
    assert said["message"].startswith(f"cannot write {tmp_path / 'file'}")
    assert "HF_HOME" in said["hint"]


# --- without the client -----------------------------------------------------------------


def test_without_huggingface_hub_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from resdeploy.contracts import silent\n"
        "from resdeploy.errors import MissingExtraError\n"
        "from resdeploy.models.weights.hub import fetch_hub\n"
        "try: fetch_hub('timm/resnet50.a1_in1k', progress=silent)\n"
        "except MissingExtraError as error: print(error.message, '|', error.hint)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, hint = said.stdout.strip().split(" | ")
    assert message == "an hf: reference needs the package 'huggingface_hub', which is not installed"
    assert hint == "pip install 'resdeploy[hub]'"


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "resnet50",
        "a/b/c",
        "/b",
        "a/",
        "a/b@",
        "a/b@../c",
        "a b/c",
        "-a/b",
        "a/b.",
        "a--b/c",
        "a/b..c",
        "a/b.git",
        "a/é",
        "a/" + "b" * 97,
        "https://huggingface.co/a/b",
    ],
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(UsageError, match="names no repository") as raised:
        fetch_hub(reference, progress=silent)
    assert "ORG/REPO@REVISION" in raised.value.hint


# --- preprocessing ----------------------------------------------------------------------

TIMMS = {
    "input_size": [3, 224, 224],
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_mode": "center",
    "test_input_size": [3, 288, 288],
}


def test_the_record_of_timm() -> None:
    wanted = Preprocess(
        size=224,
        resize=235,
        crop=224,
        interpolation=Interpolation.BICUBIC,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        channels=ChannelOrder.RGB,
    )
    assert preprocess_of({"architecture": "resnet50", "pretrained_cfg": TIMMS}) == wanted
    assert preprocess_of({"architecture": "resnet50", **TIMMS}) == wanted


def test_what_a_record_leaves_out_is_as_timm_takes_it() -> None:
    said = preprocess_of({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    assert said is not None
    assert (said.size, said.resize, said.crop) == (224, 256, 224)
    assert (said.interpolation, said.mean) == (Interpolation.BICUBIC, (0.5, 0.5, 0.5))


def test_the_crop_mode_of_a_record_is_in_one_line() -> None:
    for config in (
        {"pretrained_cfg": TIMMS | {"crop_mode": "a\nb"}},
        TIMMS | {"crop_mode": "a\nb"},
    ):
        said, (note,) = prepared(config, "hf:o/x")
        assert said == preprocess_of(TIMMS)
        assert note == "hf:o/x prepares images by a\\nb; here their centre is cut out"
    assert prepared({}, "hf:o/x") == (None, ())
    assert prepared(TIMMS, "hf:o/x") == (preprocess_of(TIMMS), ())


def test_grey_images() -> None:
    grey = TIMMS | {"input_size": [1, 64, 64], "mean": [0.5], "std": [0.25]}
    said = preprocess_of({"pretrained_cfg": grey})
    assert said is not None
    assert (said.channels, said.mean, said.size) == (ChannelOrder.L, (0.5,), 64)


@given(st.integers(1, 1000), st.floats(0.1, 1.0))
def test_the_edge_is_rounded_down(size: int, crop_pct: float) -> None:
    record = TIMMS | {"input_size": [3, size, size], "crop_pct": crop_pct}
    said = preprocess_of({"pretrained_cfg": record})
    assert said is not None
    assert said.resize == math.floor(size / crop_pct) >= said.size


@pytest.mark.parametrize("config", [{}, {"model_type": "resnet", "depths": [3, 4, 6, 3]}])
def test_a_config_that_says_nothing_of_it(config: dict[str, Any]) -> None:
    assert preprocess_of(config) is None


@pytest.mark.parametrize(
    "change",
    [
        {"crop_mode": "squash"},
        {"crop_mode": "border"},
        {"input_size": [3, 224, 240]},
        {"input_size": [4, 224, 224]},
        {"input_size": [1, 224, 224]},
        {"input_size": 224},
        {"input_size": [3, -1, -1]},
        {"crop_pct": 1.1},
        {"crop_pct": 1e-320},
        {"crop_pct": 1e-4},
        {"crop_pct": -1},
        {"crop_pct": "0.9"},
        {"interpolation": "random"},
        {"mean": [0.5, 0.5]},
        {"std": [0.0, 0.5, 0.5]},
    ],
)
def test_what_cannot_be_expressed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="cannot be done here") as raised:
        preprocess_of({"pretrained_cfg": TIMMS | change})
    (key,) = change
    assert f"{key} {change[key]}" in raised.value.message
