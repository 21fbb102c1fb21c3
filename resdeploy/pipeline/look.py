"""`predict`, `inspect`, `show`: an artifact or a model in, what it says or holds out.

Part of the Python API.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resdeploy.artifact import open_artifact
from resdeploy.contracts import Notify, unheard
from resdeploy.data import decode, preprocessed
from resdeploy.errors import ArtifactError, DataError, VerificationError
from resdeploy.graph import summary
from resdeploy.graph.files import read_model
from resdeploy.measure.machine import machine_facts
from resdeploy.models.family.resnet import skeleton
from resdeploy.models.summary import LayerRow, layers_of
from resdeploy.models.family.variants import VARIANTS
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.evaluate import candidates_of
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.records import Manifest, Record


class Guess(Record):
    """One class of an answer: its index, its name where labels are known, its probability."""

    index: int
    label: str
    probability: float


class Prediction(Record):
    """The likeliest classes of one image, the best first."""

    path: str
    top: tuple[Guess, ...]


def predict(
    artifact: Path,
    images: Sequence[Path],
    *,
    labels: Path | None = None,
    top: int = 5,
    notify: Notify = unheard,
) -> tuple[Prediction, ...]:
    """The `top` classes of each image, with the sidecar's preprocessing.

    labels: a text file with one class name per line.

    Raises:
        ArtifactError: no sidecar, so nobody knows how to preprocess.
        DataError: an image cannot be read, or the labels are too few.
    """
    opened = open_artifact(artifact)
    preprocess = None if opened.manifest is None else opened.manifest.preprocess
    if preprocess is None:
        raise ArtifactError(
            f"no sidecar says how images are preprocessed for {artifact}",
            hint="export it with resdeploy, which writes one, with what it knows",
        )
    if opened.manifest and opened.manifest.model and not opened.manifest.model.trained:
        notify(f"{artifact} was made from random weights: its answers mean nothing")
    names = _labels(labels)
    candidate = candidates_of([opened])[0]
    predictions = []
    with compare.runner_for(candidate, machine_facts().cores) as runner:
        for path in images:
            try:
                pixels = preprocessed(decode(path), preprocess, name=str(path))
            except DataError as error:
                hint = f"the artifact's sidecar asks for {preprocess.size} by {preprocess.size}"
                raise DataError(error.message, hint=hint) from error
            logits = runner.run(pixels[np.newaxis])[0].astype(np.float64)
            if not np.isfinite(logits).all():
                raise VerificationError(f"{artifact} answers NaN or infinity for {path}")
            predictions.append(_prediction(path, logits, names, top))
    return tuple(predictions)


def _labels(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels {path}", hint="one class name per line") from error


def _prediction(
    path: Path,
    logits: NDArray[np.float64],
    names: tuple[str, ...],
    top: int,
) -> Prediction:
    if names and len(names) != len(logits):
        raise DataError(f"there are {len(names)} labels for {len(logits)} classes")
    exponentials = np.exp(logits - logits.max())
    shares = exponentials / exponentials.sum()
    best = np.argsort(-shares, kind="stable")[:top]
    return Prediction(
        path=str(path),
        top=tuple(
            Guess(
                index=int(index),
                label=names[index] if names else str(index),
                probability=float(shares[index]),
            )
            for index in best
        ),
    )


class Inspection(Record):
    """An artifact from the outside and the inside; `manifest` is null without a sidecar."""

    path: str
    sha256: str
    size_bytes: int
    graph: summary.GraphSummary
    manifest: Manifest | None


def inspect(artifact: Path) -> Inspection:
    """What is in an ONNX file, and how it came to be.

    Raises:
        ArtifactError, GraphError: the file is not there, altered or damaged.
    """
    opened = open_artifact(artifact)
    return Inspection(
        path=str(artifact),
        sha256=opened.sha256,
        size_bytes=artifact.stat().st_size,
        graph=summary.summary_of(read_model(artifact)),
        manifest=opened.manifest,
    )


class Shown(Record):
    """A model layer by layer."""

    name: str
    params: int
    macs: int
    input_shape: tuple[int, ...]
    layers: tuple[LayerRow, ...]


def show(model: str, *, size: int | None = None) -> Shown:
    """Kind, output shape, parameters and MACs of every layer, for one image."""
    row = VARIANTS[model]
    preprocess = chosen_preprocess(row.preprocess, InputChoice(size=size))
    shape = make.image_shape(row.config.in_channels, preprocess)
    layers = layers_of(skeleton(row.config), shape)
    return Shown(
        name=model,
        params=row.params,
        macs=sum(layer.macs for layer in layers),
        input_shape=shape,
        layers=layers,
    )
