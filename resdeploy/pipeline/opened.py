"""The path of an ONNX file in, an artifact out, with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resdeploy.artifact import Artifact, open_artifact
from resdeploy.errors import GraphError, UsageError
from resdeploy.formats import FORMATS
from resdeploy.graph import summary
from resdeploy.graph.files import read_model
from resdeploy.pipeline import make
from resdeploy.pipeline.make_export import ONNX
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess, preprocess_from
from resdeploy.records import GraphSummary, Manifest, Preprocess
from resdeploy.words import ChannelOrder


def opened_onnx(
    path: Path, choice: InputChoice, precisions: Sequence[str] = ("fp32",)
) -> tuple[Artifact, Manifest]:
    """An ONNX file and its sidecar; without one, what the graph and the user say.

    Raises:
        ArtifactError, GraphError: it is no sound ONNX file of one of these precisions.
        UsageError: it is of another format, or what the user says contradicts it.
    """
    if path.suffix in {row.suffix for row in FORMATS if row.name != ONNX}:
        raise UsageError(
            f"{path} is no ONNX file, and only ONNX graphs are simplified and quantized",
            hint="export the model with --format onnx, and start from that",
        )
    artifact = open_artifact(path)
    facts = summary.summary_of(read_model(path))
    if len(facts.inputs) != 1 or len(facts.inputs[0].shape) != 4:
        shapes = [list(tensor.shape) for tensor in facts.inputs]
        raise GraphError(f"{path} takes {shapes}; one input [N, C, H, W] is needed")
    if facts.precision not in precisions:
        raise GraphError(f"{path} is {facts.precision} already", hint="start from its FP32 source")
    if isinstance(facts.inputs[0].shape[0], int):
        raise GraphError(
            f"the batch of {path} is fixed at {facts.inputs[0].shape[0]}",
            hint="export it with a dynamic batch",
        )
    known = artifact.manifest or _foreign_manifest(artifact, facts)
    own = known.preprocess or _said_preprocess(facts, choice)
    preprocess = None if own is None else chosen_preprocess(own, choice)
    edge = _edge(facts)
    if choice.size is not None and isinstance(edge, int) and choice.size != edge:
        raise UsageError(f"--size is {choice.size}, but {path} takes {edge} by {edge} images")
    return artifact, known.model_copy(update={"preprocess": preprocess})


def _edge(facts: GraphSummary) -> int | str:
    """The width of the images that a graph takes, wherever their channels stand."""
    return facts.inputs[0].shape[2]


def _said_preprocess(facts: GraphSummary, choice: InputChoice) -> Preprocess | None:
    """The preprocessing of a graph without a record of it: what the user says, or nothing."""
    if choice.mean is None or choice.std is None:
        return None
    channels, edge = facts.inputs[0].shape[1], _edge(facts)
    size = edge if isinstance(edge, int) else choice.size
    if size is None:
        raise UsageError(
            f"the graph takes images {list(facts.inputs[0].shape)}", hint="give --size"
        )
    order = ChannelOrder.L if channels == 1 else ChannelOrder.RGB
    return preprocess_from(size=size, mean=choice.mean, std=choice.std, channels=order)


def known_preprocess(path: str, manifest: Manifest) -> Preprocess:
    """How images are preprocessed for a file.

    Raises:
        UsageError: nobody says, or it takes a number of channels that no image has.
    """
    if manifest.preprocess is None:
        raise UsageError(
            f"no sidecar says how images are preprocessed for {path}",
            hint="give --mean and --std (and --crop-pct, --interpolation if they matter)",
        )
    make.require_image_channels(manifest.model, manifest.preprocess)
    return manifest.preprocess


def _foreign_manifest(artifact: Artifact, facts: GraphSummary) -> Manifest:
    """What we can say of an ONNX file that has no sidecar."""
    return Manifest(
        name=artifact.path.stem,
        format="onnx",
        precision=facts.precision,
        sha256=artifact.sha256,
        size_bytes=artifact.path.stat().st_size,
        opset=facts.opset,
        inputs=facts.inputs,
        outputs=facts.outputs,
        model=None,
        preprocess=None,
        verification=(),
        history=(),
    )
