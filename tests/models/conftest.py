"""Fixtures of several files: the golden ResNets, a cache of downloads, clients of a small Hub."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.models.hub_client import TOKEN, Client
from tests.models.loopback import Hub

pytest.register_assert_rewrite("tests.models.weight_files")  # its asserts say values too

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def fill() -> ModuleType:
    """The rule by which golden models are filled (tests/golden/fill.py)."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden() -> Any:
    """Keys, shapes, parameters, MACs, preprocessing and probe outputs of 133 ResNets."""
    with gzip.open(GOLDEN / "resnet_family.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's cache, empty; no proxy stands before the loopback."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


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
