"""`predict`, `inspect`: an artifact in, what it says or holds out.

Part of the Python API.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.artifact import open_artifact
from resdeploy.contracts import Notify, unheard
from resdeploy.data import decode, preprocessed
from resdeploy.engines import ENGINE
from resdeploy.errors import ArtifactError, DataError, UsageError, VerificationError
from resdeploy.measure.machine import machine_facts
from resdeploy.models.labels import CLASSES, answers_imagenet, imagenet_classes
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.evaluate import candidates_of
from resdeploy.pipeline.feeding import probabilities
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.records import GraphSummary, Manifest, Record, TensorFacts
from resdeploy.table import load_target
from resdeploy.words import Head

IMAGENET = "imagenet"  # the word for the class names that the package ships


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
    labels: str | Path | None = None,
    top: int = 5,
    notify: Notify = unheard,
) -> tuple[Prediction, ...]:
    """The `top` classes of each image, with the sidecar's preprocessing.

    labels: a text file with one class name per line, or the word `imagenet`; a Path is a file,
        whatever it is called. Without it, classes have ImageNet's names where the sidecar says
        that the weights are published ones for its 1000 classes, and else their index.

    Raises:
        ArtifactError: no sidecar, so nobody knows how to preprocess.
        UsageError: the model takes a number of channels that no image has, or gives features.
        DataError: an image cannot be read, or the labels are too few.
    """
    opened = open_artifact(artifact)
    preprocess = None if opened.manifest is None else opened.manifest.preprocess
    if opened.manifest is None or preprocess is None:
        raise ArtifactError(
            f"no sidecar says how images are preprocessed for {artifact}",
            hint="export it with resdeploy, which writes one, with what it knows",
        )
    make.require_image_channels(opened.manifest.model, preprocess)
    if opened.manifest.model and not opened.manifest.model.trained:
        notify(f"{artifact} was made from random weights: its answers mean nothing")
    head = opened.manifest.interface.head
    if head is Head.FEATURES:
        raise UsageError(f"{artifact} gives features, not classes", hint="export it with a head")
    names = _class_names(labels, opened.manifest, notify)
    candidate = candidates_of([opened])[0]
    predictions = []
    with compare.runner_for(candidate, machine_facts().cores) as runner:
        for path in images:
            try:
                pixels = preprocessed(decode(path), preprocess, name=str(path))
            except DataError as error:
                hint = f"the artifact's sidecar asks for {preprocess.size} by {preprocess.size}"
                raise DataError(error.message, hint=hint) from error
            answers = runner.run(pixels[np.newaxis])
            if not np.isfinite(answers).all():
                raise VerificationError(f"{artifact} answers NaN or infinity for {path}")
            shares = answers if head is Head.PROBABILITIES else probabilities(answers)
            predictions.append(_prediction(path, shares[0].astype(np.float64), names, top))
    return tuple(predictions)


def _class_names(
    labels: str | Path | None, manifest: Manifest, notify: Notify
) -> tuple[str, ...] | None:
    """The names of the classes in the order of their index, where they are beyond doubt."""
    if labels is not None:
        return imagenet_classes() if labels == IMAGENET else _read_names(Path(labels))
    if manifest.model is not None and answers_imagenet(manifest.model):
        return imagenet_classes()
    if manifest.outputs and manifest.outputs[0].shape[-1] == CLASSES:
        notify(
            f"the sidecar does not say what the {CLASSES} classes are called: their index is "
            f"given; --labels {IMAGENET} gives ImageNet's names"
        )
    return None


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the labels {path}",
            hint=f"one class name per line, or the word {IMAGENET}",
        ) from error


def _prediction(
    path: Path,
    shares: NDArray[np.float64],
    names: tuple[str, ...] | None,
    top: int,
) -> Prediction:
    if names is not None and len(names) != len(shares):
        raise DataError(f"there are {len(names)} labels for {len(shares)} classes")
    best = np.argsort(-shares, kind="stable")[:top]
    return Prediction(
        path=str(path),
        top=tuple(
            Guess(
                index=int(index),
                label=str(index) if names is None else names[index],
                probability=float(shares[index]),
            )
            for index in best
        ),
    )


class Inspection(Record):
    """An artifact from the outside and the inside; `manifest` is null without a sidecar.

    note: of the times of its layers.
    """

    path: str
    sha256: str
    size_bytes: int
    graph: GraphSummary
    manifest: Manifest | None
    note: str = ""


def inspect(artifact: Path) -> Inspection:
    """What is in a file of any format, and how it came to be.

    Raises:
        ArtifactError, GraphError: the file is not there, altered or damaged.
    """
    opened = open_artifact(artifact)
    known = opened.manifest  # which counts weights in a file of their own, too
    form = format_of(artifact)
    contents = load_target(form.contents, extra="", why=f"a look into {artifact}")
    graph, note = contents(artifact, _images_of(known)), ""
    if form.name == ENGINE:
        from resdeploy.pipeline.engine_bench import with_layer_times  # which loads PyTorch

        graph, note = with_layer_times(opened, graph)
    return Inspection(
        path=str(artifact),
        sha256=opened.sha256,
        size_bytes=artifact.stat().st_size if known is None else known.size_bytes,
        graph=graph,
        manifest=known,
        note=note,
    )


def _images_of(manifest: Manifest | None) -> TensorFacts | None:
    """The first input as the sidecar has it, its open edges as long as preprocessing makes them."""
    if manifest is None or not manifest.inputs:
        return None
    first = manifest.inputs[0]
    edge = None if manifest.preprocess is None else manifest.preprocess.size
    sizes = [size if isinstance(size, int) else edge for size in first.shape[1:]]
    shape = (*first.shape[:1], *(size for size in sizes if size is not None))
    return first.model_copy(update={"shape": shape}) if None not in sizes else None


class Difference(Record):
    """A dotted name from Inspection, and what it is in either file; empty where it is not there."""

    name: str
    left: str
    right: str


class Comparison(Record):
    """Two artifacts, and where they differ."""

    left: Inspection
    right: Inspection
    differences: tuple[Difference, ...]


# What every file has its own of, and what the sidecar repeats.
_OMITTED = (
    "path", "manifest.verification", "manifest.sha256", "manifest.size_bytes",
    "manifest.precision", "manifest.opset", "manifest.inputs", "manifest.outputs",
)  # fmt: skip
_KEYS = ("name", "step", "operator")  # by which the parts of a list are known


def difference(left: Path, right: Path) -> Comparison:
    """What is another in `right` than in `left`: operators, MACs, weights, provenance.

    Single nodes are not compared, and left out: those of two exports have other names.

    Raises:
        ArtifactError, GraphError: a file is not there, altered or damaged.
    """
    found = _without_nodes(inspect(left)), _without_nodes(inspect(right))
    before, after = (_flat(_comparable(item)) for item in found)
    return Comparison(
        left=found[0],
        right=found[1],
        differences=tuple(
            Difference(name=name, left=before.get(name, ""), right=after.get(name, ""))
            for name in dict.fromkeys((*before, *after))
            if before.get(name) != after.get(name) and not name.startswith(_OMITTED)
        ),
    )


def _without_nodes(found: Inspection) -> Inspection:
    graph = found.graph.model_copy(update={"node_facts": ()})
    return found.model_copy(update={"graph": graph})


def _comparable(found: Inspection) -> dict[str, Any]:
    """The fields of an inspection; operators are counted by what they compute in."""
    fields = found.model_dump(mode="json")
    operators: dict[str, dict[str, int]] = {}
    for row in fields["graph"].pop("by_precision"):
        operators.setdefault(row["operator"], {})[row["precision"] or "unknown"] = row["count"]
    fields["graph"]["operators"] = operators
    return fields


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Every leaf by its dotted name; the parts of a list by what they are called."""
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = {_key(part): part for part in value}
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return {} if value is None or value == [] else {name: shown}
    return {
        key: leaf
        for part, content in parts.items()
        for key, leaf in _flat(content, f"{name}.{part}" if name else part).items()
    }


def _key(part: dict[str, Any]) -> str:
    return str(next(part.pop(key) for key in _KEYS if key in part))
