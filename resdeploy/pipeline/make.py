"""Models and artifacts in, verified files with their manifests out.

Each function writes one file to the path it is given and returns what its sidecar says;
it raises, and the caller's path is worthless, where a named check fails. Giving a file its
final name is the caller's business (`artifact.publish`).
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Notify
from resdeploy.errors import UsageError
from resdeploy.formats.onnx import BATCH, INPUT, OPSET, OUTPUT, onnx_from_module
from resdeploy.graph import summary
from resdeploy.graph.files import read_model
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.models.reference import LoadedModel
from resdeploy.records import (
    BatchProfile,
    Check,
    HistoryStep,
    Manifest,
    ModelFacts,
    Preprocess,
)
from resdeploy.runtimes import EagerRunner, OrtRunner

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


def export_file(
    loaded: LoadedModel,
    preprocess: Preprocess,
    path: Path,
    *,
    name: str,
    batch: BatchProfile | None = None,
) -> Manifest:
    """Export to ONNX and hold it against eager PyTorch at two batch sizes and those of `batch`.

    Raises:
        VerificationError: the exporter failed, or its graph answers differently.
    """
    shape = image_shape(loaded.facts.in_channels, preprocess)
    onnx_from_module(loaded.module, path, image_shape=shape)
    with (
        EagerRunner(loaded.module, threads=THREADS) as eager,
        OrtRunner(path, threads=THREADS) as ort,
    ):
        batches = verify.batches_of(batch)
        checks = verify.agreement_checks(eager.run, ort.run, shape, verify.EXPORT, batches)
    model = read_model(path)
    graph = summary.summary_of(model)
    checks += _graph_checks(model, graph)
    verify.require(
        checks,
        f"the ONNX export of {loaded.facts.reference}",
        "report this: the exporter and PyTorch disagree on this model",
    )
    step = HistoryStep(
        step="export",
        tools=package_versions(["torch", "onnxruntime"]),
        source_sha256=loaded.facts.weights_sha256,
        nodes=graph.nodes,
        notes=("torch.onnx.export, tracing exporter",),
    )
    manifest = _manifest(path, graph, name, loaded.facts, preprocess, checks, (step,))
    return manifest.model_copy(update={"batch": batch})


def _graph_checks(model: ir.Model, facts: summary.GraphSummary) -> Checks:
    """Names and dynamic batch as promised; no BatchNorm left that its convolution can take."""
    tensors = (*facts.inputs, *facts.outputs)
    unfolded = [node for node in model.graph if _is_foldable_batchnorm(node)]
    names = [tensor.name for tensor in tensors]
    first = [tensor.shape[0] if tensor.shape else None for tensor in tensors]
    return (
        verify.condition("names", names == [INPUT, OUTPUT], f"inputs and outputs are {names}"),
        verify.condition("dynamic-batch", first == [BATCH, BATCH], f"first dimensions {first}"),
        verify.condition("batchnorm-folded", not unfolded, f"{len(unfolded)} BatchNorm left"),
    )


def _is_foldable_batchnorm(node: ir.Node) -> bool:
    """Whether it alone reads what a convolution of known weights writes.

    In v2 blocks the shortcut may read it, too; standardised weights are computed in the graph.
    """
    image = node.inputs[0] if node.inputs else None
    producer = None if image is None else image.producer()
    if node.op_type != "BatchNormalization" or image is None or producer is None:
        return False
    stored = all(value is None or value.is_initializer() for value in producer.inputs[1:])
    return producer.op_type == "Conv" and len(image.uses()) == 1 and stored


def merged_checks(earlier: Checks, checks: Checks, step: str) -> Checks:
    """The checks of a later step after those of earlier ones, under `<step>.<name>`."""
    named = (check.model_copy(update={"name": f"{step}.{check.name}"}) for check in checks)
    return (*earlier, *named)


def _manifest(
    path: Path,
    graph: summary.GraphSummary,
    name: str,
    facts: ModelFacts,
    preprocess: Preprocess,
    checks: Checks,
    history: tuple[HistoryStep, ...],
) -> Manifest:
    return Manifest(
        name=name,
        format="onnx",
        precision="fp32",
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
        opset=OPSET,
        inputs=graph.inputs,
        outputs=graph.outputs,
        model=facts,
        preprocess=preprocess,
        verification=checks,
        history=history,
    )
