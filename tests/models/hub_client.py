"""A client of the Hub in a process of its own, and repositories for it to fetch."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resdeploy.records import Preprocess
from resdeploy.words import Interpolation
from tests.conftest import ROOT
from tests.models.loopback import Repository

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
