"""A model in, a verified file of one format with its manifest out.

A format has one exporter or several (EXPORTERS). With AUTO they are tried in order until one
writes a file that passes every named check; with BOTH all are, side by side. Which was used,
and why the others were not, is in the sidecar and told to the user.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Notify, Runner, unheard
from resdeploy.errors import UnknownNameError, VerificationError
from resdeploy.formats import EXPORTERS, FORMATS, Exporter
from resdeploy.formats.images import ExportImages
from resdeploy.formats.onnx import BATCH, INPUT, OUTPUT
from resdeploy.graph import summary
from resdeploy.graph.files import read_model
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.make import THREADS, Checks, image_shape
from resdeploy.records import (
    BatchProfile,
    GraphSummary,
    HistoryStep,
    Manifest,
    Preprocess,
    TensorFacts,
)
from resdeploy.runtimes import RUNTIMES, EagerRunner
from resdeploy.table import load_target

AUTO = "auto"
BOTH = "both"


def exporters_of(format: str, choice: str) -> tuple[Exporter, ...]:
    """The exporters to try, in order.

    Raises:
        UnknownNameError: no such format, or no such exporter of it.
    """
    form = FORMATS[format].name
    rows = tuple(row for row in EXPORTERS if row.format == form)
    if choice in (AUTO, BOTH):
        return rows
    named = tuple(row for row in rows if row.name == choice)
    if not named:
        raise UnknownNameError(
            f"exporter of {form}", choice, [AUTO, BOTH, *(row.name for row in rows)]
        )
    return named


def export_file(
    loaded: LoadedModel,
    preprocess: Preprocess,
    path: Path,
    *,
    name: str,
    format: str = "onnx",
    exporter: str = AUTO,
    batch: BatchProfile | None = None,
    notify: Notify = unheard,
) -> Manifest:
    """Export to `path`, and hold the file against eager PyTorch.

    Raises:
        UnknownNameError: no such format, or no such exporter of it.
        VerificationError: no exporter wrote a file that passes every check.
    """
    shape = image_shape(loaded.facts.in_channels, preprocess)
    bounds = {} if batch is None else {"least": batch.min, "greatest": batch.max}
    work = _Work(loaded, ExportImages(shape=shape, **bounds), _batches(format, batch), path)
    notes: list[str] = []
    good: _Made | None = None
    errors = []
    for row in exporters_of(format, exporter):
        other = path.with_name(f"other.{path.name}")  # beside one that is good already
        try:
            made = work.made(row, path if good is None else other)
        except VerificationError as error:
            errors.append(error)
            notes.append(f"{row.name} was not used: {error.message}")
            notify(notes[-1])
            continue
        finally:
            other.unlink(missing_ok=True)
        good = good or made
        if exporter != BOTH:
            break
        notes.append(made.line())
        notify(notes[-1])
    if good is None:
        raise _failure(errors)
    return _manifest(
        good, path, name, loaded, preprocess, batch, [*notes, f"exporter {good.row.name}"]
    )


def _failure(errors: Sequence[VerificationError]) -> VerificationError:
    """The only reason, or all of them in one sentence."""
    if len(errors) == 1:
        return errors[0]
    reasons = "; then ".join(error.message for error in errors)
    return VerificationError(reasons, hint=errors[0].hint)


def _batches(format: str, batch: BatchProfile | None) -> tuple[int, ...]:
    """The batch sizes to try; of a format with bounds, only those within."""
    sizes = verify.batches_of(batch)
    if batch is None or not FORMATS[format].bounded:
        return sizes
    return tuple(size for size in sizes if batch.min <= size <= batch.max)


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that passed. graph: what it holds, where it is ONNX; seconds: without the checks."""

    row: Exporter
    size_bytes: int
    seconds: float
    graph: GraphSummary | None
    checks: Checks

    def line(self) -> str:
        """The figures by which exporters are compared."""
        nodes = "" if self.graph is None else f"{self.graph.nodes} nodes, "
        apart = max(check.value for check in self.checks if check.name.startswith("agreement"))
        size = f"{self.size_bytes / 1e6:.1f} MB"
        return f"{self.row.name}: {nodes}{size}, {self.seconds:.1f} s, max_abs {apart:.1e}"


@dataclass(frozen=True, slots=True)
class _Work:
    """What is exported, and at which batch sizes the files are tried."""

    loaded: LoadedModel
    images: ExportImages
    batches: tuple[int, ...]
    path: Path

    def made(self, row: Exporter, path: Path) -> _Made:
        """Let one exporter write `path`, and check it.

        Raises:
            VerificationError: it failed, or a check did.
        """
        start = time.perf_counter()
        write = load_target(row.target, extra="", why="the export")
        write(self.loaded.module, path, self.images)
        seconds = time.perf_counter() - start
        model = read_model(path) if row.format == "onnx" else None
        graph = None if model is None else summary.summary_of(model)
        checks = self._answers(row, path)
        if model is not None and graph is not None:
            checks += _graph_checks(model, graph)
        verify.require(
            checks,
            f"the {FORMATS[row.format].name} export of {self.loaded.facts.reference} ({row.name})",
            "report this: the exporter and PyTorch disagree on this model",
        )
        return _Made(row, path.stat().st_size, seconds, graph, checks)

    def _answers(self, row: Exporter, path: Path) -> Checks:
        runtime = next(item for item in RUNTIMES if row.format in item.formats)
        factory = load_target(runtime.target, extra=runtime.extra, why="verifying an export")
        candidate: Runner = factory(path, threads=THREADS)
        with EagerRunner(self.loaded.module, threads=THREADS) as eager, candidate as file:
            return verify.export_checks(eager.run, file.run, self.images.shape, self.batches)


def _graph_checks(model: ir.Model, facts: GraphSummary) -> Checks:
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


def _manifest(
    made: _Made,
    path: Path,
    name: str,
    loaded: LoadedModel,
    preprocess: Preprocess,
    batch: BatchProfile | None,
    notes: Sequence[str],
) -> Manifest:
    form, graph = FORMATS[made.row.format], made.graph
    shape = (BATCH, *image_shape(loaded.facts.in_channels, preprocess))
    image = TensorFacts(name=INPUT, dtype="float", shape=shape)
    logits = TensorFacts(name=OUTPUT, dtype="float", shape=(BATCH, loaded.facts.num_classes))
    step = HistoryStep(
        step="export",
        tools=package_versions(["torch", *(["onnxruntime"] if graph else [])]),
        source_sha256=loaded.facts.weights_sha256,
        nodes=None if graph is None else graph.nodes,
        notes=(*notes, *([form.note] if form.note else [])),
    )
    return Manifest(
        name=name,
        format=form.name,
        precision="fp32",
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
        opset=None if graph is None else graph.opset,
        inputs=(image,) if graph is None else graph.inputs,
        outputs=(logits,) if graph is None else graph.outputs,
        model=loaded.facts,
        preprocess=preprocess,
        batch=batch,
        verification=made.checks,
        history=(step,),
    )
