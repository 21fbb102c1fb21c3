"""Which file of a repository is taken, and that none is taken by guess."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.models.hub_client import SMALL, Client, needs_client
from tests.models.loopback import Hub, Repository


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
