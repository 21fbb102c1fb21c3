"""A Hub that refuses, is none, or sends something else than it announced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.hub_client import BODY, LARGE, SMALL, Client, needs_client, plain
from tests.models.loopback import Handler, Hub, Loopback, Manner, Repository, keeps_silent, refuses


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
