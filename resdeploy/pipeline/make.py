"""Models and artifacts in, verified files with their manifests out.

Each function writes one file to the path it is given and returns what its sidecar says;
it raises, and the caller's path is worthless, where a named check fails. Giving a file its
final name is the caller's business (`artifact.publish`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Notify
from resdeploy.errors import UsageError
from resdeploy.graph.files import data_files
from resdeploy.models.reference import LoadedModel
from resdeploy.records import (
    Check,
    Manifest,
    ModelFacts,
    Preprocess,
)

Checks = tuple[Check, ...]

# Verification is about numbers, not speed; one thread keeps it the same on every machine.
THREADS = 1

Shape = tuple[int, int, int]


def image_shape(in_channels: int, preprocess: Preprocess) -> Shape:
    """(C, H, W) of the images a model takes."""
    return in_channels, preprocess.size, preprocess.size


def graph_image_shape(manifest: Manifest) -> Shape:
    """(C, H, W) of the images a graph takes; the preprocessing's size where its edges are open.

    Raises:
        UsageError: the edges are open, and nobody said how large images are.
    """
    size = None if manifest.preprocess is None else manifest.preprocess.size
    channels, *edges = manifest.inputs[0].shape[1:]
    if manifest.interface.pixels:
        *edges, channels = manifest.inputs[0].shape[1:]
    height, width = (edge if isinstance(edge, int) else size for edge in edges)
    if not isinstance(channels, int) or height is None or width is None:
        raise UsageError(
            f"{manifest.name} takes images {list(manifest.inputs[0].shape)} of open size",
            hint="give --size, with --mean and --std",
        )
    return channels, height, width


def require_image_channels(model: ModelFacts | None, preprocess: Preprocess) -> None:
    """Refuse to feed images to a model whose channels no image has.

    Raises:
        UsageError: the model takes another number of channels than its preprocessing gives.
    """
    if model is not None and model.in_channels != len(preprocess.channels):
        raise UsageError(
            f"{model.reference} takes {model.in_channels} channels; images have 1 or 3",
            hint="it can be exported, simplified and timed; calibrate, check, predict need images",
        )


def tell_notes(loaded: LoadedModel, notify: Notify) -> None:
    """Say what the user should know of a model."""
    for note in loaded.notes:
        notify(note)


def file_facts(path: Path) -> dict[str, Any]:
    """What a sidecar says of a file that we have just made, and of its weights beside it."""
    beside = data_files(path) if any(path.parent.glob("*.data")) else ()
    return {
        "sha256": sha256_of_file(path),
        "size_bytes": sum(file.stat().st_size for file in (path, *beside)),
        "data": {file.name: sha256_of_file(file) for file in beside},
    }


def merged_checks(earlier: Checks, checks: Checks, step: str) -> Checks:
    """The checks of a later step after those of earlier ones, under `<step>.<name>`."""
    named = (check.model_copy(update={"name": f"{step}.{check.name}"}) for check in checks)
    return (*earlier, *named)
