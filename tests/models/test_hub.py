"""Weights from a Hub that behaves well, and references that need no Hub to be refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resdeploy.contracts import silent
from resdeploy.errors import UsageError
from resdeploy.models.weights.hub import fetch_hub
from tests.conftest import ROOT
from tests.models.hub_client import BODY, LARGE, PREPARED, SMALL, TOKEN, Client, needs_client, plain
from tests.models.loopback import Hub, Repository

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
