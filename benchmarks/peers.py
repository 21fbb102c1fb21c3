"""A float ONNX file and images enter; the INT8 file of a peer or of ours leaves, or a failure.

What `int8_fidelity.py` and `int8_latency.py` share. Each peer of `peer_quantize.py` runs in a
process of its own, with the first Python that has its package: ours, then those of
`--peer-python`. A peer that no Python has, or that fails, is a row with its last words.

With `--work DIR` the files stay, in a folder that is called by the contents of the float file,
of the images and of `peer_quantize.py`, and by the version of the package; a later run takes
what it finds there, with the seconds and bytes that were measured when it was made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import HERE, CannotRunError, Child, measured_child
from peer_quantize import PEERS, Peer

if TYPE_CHECKING:
    from resdeploy.contracts import Source
    from resdeploy.records import Preprocess

SCRIPT = HERE / "peer_quantize.py"
OURS = HERE / "our_quantize.py"
LAST_WORDS = 600
# Packages whose version is part of what a peer does, beside its own.
_AROUND = ("onnx", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")

_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """An interpreter, and the versions of the packages that matter here."""

    path: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Where peers are run: interpreters in the order they are tried, and a folder for files."""

    pythons: tuple[Python, ...]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a quantizer made of a float file.

    path: its INT8 file; None where it failed, and `figures` says how.
    figures: for a results file; seconds and bytes are those of the whole process.
    """

    name: str
    path: Path | None
    figures: dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--peer-python` and `--work`."""
    parser.add_argument(
        "--peer-python",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="a Python with peers that ours lacks; may be given several times",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep the peers' files here, and use them again"
    )


@contextmanager
def workplace(pythons: Sequence[Path], work: Path | None) -> Iterator[Workplace]:
    """The interpreters, asked what they have, and `work` or a folder that goes away."""
    paths = [sys.executable, *(str(path.absolute()) for path in pythons)]
    asked = tuple(python_of(path) for path in paths)
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield Workplace(pythons=asked, folder=work.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="resdeploy-peers-") as folder:
        yield Workplace(pythons=asked, folder=Path(folder))


def python_of(path: str) -> Python:
    """An interpreter and what it has; nothing is imported to find out."""
    names = dict.fromkeys([*(peer.package for peer in PEERS.values()), *_AROUND])
    try:
        done = subprocess.run(
            [path, "-c", _VERSIONS, *names], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRunError(f"--peer-python {path} is no Python that runs: {error}") from error
    return Python(path=path, versions=json.loads(done.stdout))


def save_images(source: Source, preprocess: Preprocess, path: Path) -> int:
    """Write preprocessed images, float32 [N, C, H, W], as peers read them; how many there are."""
    import numpy as np

    images = np.concatenate([batch.images for batch in source.batches(preprocess, 64)])
    np.save(path, images)
    return len(images)


def made_by(peer: Peer, model: Path, images: Path, place: Workplace) -> Made:
    """The INT8 file of a peer, made now or found where `--work` keeps it.

    A failure is not kept: the machine may have been short of memory.
    """
    python = next((one for one in place.pythons if peer.package in one.versions), None)
    if python is None:
        why = f"{peer.package} is in no Python that was named (--peer-python)"
        return Made(name=peer.name, path=None, figures={"kind": peer.kind, "failed": why})
    folder = place.folder / f"{peer.name}-{key_of(peer, model, images, python)}"
    output, record = folder / "int8.onnx", folder / "figures.json"
    if record.is_file():
        return Made(name=peer.name, path=output, figures=json.loads(record.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    words = (peer.name, str(model), str(images), str(output))
    made = outcome(peer.name, measured_child(SCRIPT, *words, python=python.path), output)
    figures = {
        "kind": peer.kind,
        "settings": peer.settings,
        "versions": python.versions,
        **made.figures,
    }
    if made.path is not None:
        record.write_text(json.dumps(figures, indent=2) + "\n")
    return Made(name=peer.name, path=made.path, figures=figures)


def key_of(peer: Peer, model: Path, images: Path, python: Python) -> str:
    """A short name for everything that decides about the file."""
    digest = hashlib.sha256(f"{peer.name} {sorted(python.versions.items())}".encode())
    for path in (model, images, SCRIPT):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def made_by_us(
    name: str, model: Path, data: str, output: Path, samples: int, choices: dict[str, Any]
) -> Made:
    """The INT8 file of `resdeploy.quantize`, by `our_quantize.py` in a process of its own."""
    words = (str(model), data, str(output), str(samples), json.dumps(choices))
    return outcome(name, measured_child(OURS, *words), output)


def outcome(name: str, child: Child, output: Path) -> Made:
    """What became of a process that was to write `output`."""
    figures: dict[str, Any] = {
        "seconds": child.seconds,
        "peak_bytes": child.peak_bytes,
        "tree_peak_bytes": child.tree_peak_bytes,
    }
    if child.code == 0 and output.is_file():
        return Made(name=name, path=output, figures=figures)
    why = f"ended with {child.code}: {child.stderr.strip()[-LAST_WORDS:]}"
    return Made(name=name, path=None, figures={**figures, "failed": why})
