"""A model in, a verified file of one format with its manifest out.

A format has one exporter or several (EXPORTERS). With AUTO they are tried in order until one
writes a file that passes every named check; with BOTH all are, side by side. Which was used,
and why the others were not, is in the sidecar and told to the user.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from resdeploy.contracts import Notify, Runner, Source, unheard
from resdeploy.data.images import normalized
from resdeploy.errors import (
    GraphError,
    ResdeployError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from resdeploy.formats import EXPORTERS, FORMATS, Exporter
from resdeploy.formats.pixels import FromPixels
from resdeploy.formats.signature import BATCH, INPUT, OPSET, Signature
from resdeploy.graph import summary
from resdeploy.graph.bare import check_graph
from resdeploy.graph.passes import FOLDING, apply_passes
from resdeploy.graph.simplify import SimplifierChild
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.models.heads import headed
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.check_graph import graph_checks
from resdeploy.pipeline.feeding import pixels_of, probabilities
from resdeploy.pipeline.make import (
    THREADS,
    Checks,
    file_facts,
    image_shape,
    require_image_channels,
)
from resdeploy.pipeline.make_simplified import Simplification, Trials, simplified_manifest
from resdeploy.records import (
    BatchProfile,
    ExportOptions,
    GraphSummary,
    HistoryStep,
    Interface,
    Manifest,
    Preprocess,
    TensorFacts,
)
from resdeploy.runtimes import RUNTIMES, EagerRunner
from resdeploy.table import load_target
from resdeploy.words import Head

AUTO = "auto"
BOTH = "both"
ONNX = "onnx"

AS_IT_IS = ExportOptions()

# The real images that are run at a time, so that their number does not matter to memory.
_IMAGES = 8


def exporters_of(format: str, options: ExportOptions) -> tuple[Exporter, ...]:
    """The exporters to try, in order.

    Raises:
        UnknownNameError: no such format, or no such exporter of it.
        UsageError: another command makes such files, or none of them writes this opset.
    """
    form, choice = FORMATS[format].name, options.exporter
    command = FORMATS[format].command
    if command != "export":
        raise UsageError(f"{form} files are not exported", hint=f"resdeploy {command} makes them")
    known = tuple(row for row in EXPORTERS if row.format == form)
    rows = tuple(row for row in known if choice in (AUTO, BOTH, row.name))
    if not rows:
        raise UnknownNameError(
            f"exporter of {form}", choice, [AUTO, BOTH, *(row.name for row in known)]
        )
    able = tuple(row for row in rows if options.opset is None or _writes(row, options.opset))
    if not able:
        said = [f"{row.name}: {row.opsets[0]} to {row.opsets[1]}" for row in rows if row.opsets]
        raise UsageError(
            f"the opset {options.opset} cannot be written as {form}",
            hint=f"these can be: {', '.join(said)}" if said else "only ONNX has opsets",
        )
    return able


def _writes(row: Exporter, opset: int) -> bool:
    return row.opsets is not None and row.opsets[0] <= opset <= row.opsets[1]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported, and how.

    format: `simplify` is for ONNX alone, and works while the exported file is verified.
    data: images to verify on beside seeded noise.
    """

    loaded: LoadedModel
    preprocess: Preprocess
    name: str
    format: str = ONNX
    options: ExportOptions = AS_IT_IS
    batch: BatchProfile | None = None
    simplify: bool = False
    data: Source | None = None

    @property
    def interface(self) -> Interface:
        """What the file takes and gives."""
        return Interface(head=self.options.head, pixels=self.options.embed_preprocess)

    @property
    def signature(self) -> Signature:
        """The same, as exporters need it."""
        bounds = {} if self.batch is None else {"least": self.batch.min, "greatest": self.batch.max}
        return Signature(
            shape=image_shape(self.loaded.facts.in_channels, self.preprocess),
            pixels=self.interface.pixels,
            output=self.interface.head.value,
            opset=self.options.opset or OPSET,
            **bounds,
        )

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to try; of a format with bounds, only those within."""
        sizes = verify.batches_of(self.batch)
        if self.batch is None or not FORMATS[self.format].bounded:
            return sizes
        return tuple(size for size in sizes if self.batch.min <= size <= self.batch.max)

    @functools.cached_property
    def headed(self) -> nn.Module:
        """The model with the end that was asked for."""
        return headed(self.loaded.module, self.options.head, self.signature.shape)

    @property
    def module(self) -> nn.Module:
        """What is exported."""
        if not self.interface.pixels:
            return self.headed
        require_image_channels(self.loaded.facts, self.preprocess)
        return FromPixels(self.headed, self.preprocess)

    def expected(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """What eager PyTorch says of images as the file takes them.

        Preprocessing and softmax are NumPy's here, so that what the file does inside is held
        against another implementation.
        """
        floats = normalized(images, self.preprocess) if self.interface.pixels else images
        softmax = self.options.head is Head.PROBABILITIES
        module = self.loaded.module if softmax else self.headed
        with EagerRunner(module, threads=THREADS) as eager:
            answers = eager.run(floats)
        return probabilities(answers) if softmax else answers

    @functools.cached_property
    def trial(self) -> verify.Trial:
        """What files are tried on, and what they must answer."""
        shape = (verify.IMAGES, *self.signature.image_shape)
        images = verify.pixel_noise(shape) if self.interface.pixels else verify.noise(shape)
        return verify.trial_of(self.expected, images, self.batches)

    def amplified(self, tolerance: verify.Tolerance) -> verify.Tolerance:
        """The tolerance, wider where the model itself loses digits in float32."""
        pixels = self.interface.pixels
        images = self.trial.largest
        floats = normalized(images, self.preprocess) if pixels else images
        try:
            module = copy.deepcopy(self.headed).double()
            with torch.inference_mode():
                exact = module(torch.from_numpy(floats).double()).numpy()
        except (RuntimeError, TypeError):
            return tolerance  # the stricter one: its code insists on float32, or has no copy
        return verify.amplified(tolerance, self.trial, exact)


def export_file(
    export: Export,
    path: Path,
    *,
    simplifier: SimplifierChild | None = None,
    notify: Notify = unheard,
) -> Manifest:
    """Export to `path`, and hold the file against eager PyTorch.

    simplifier: the first one, where it waits already.

    Raises:
        UnknownNameError: no such format, or no such exporter of it.
        UsageError: the model has no such head, or nothing writes the opset.
        GraphError: the only exporter made a graph that is no valid ONNX.
        VerificationError: no exporter wrote a file that passes every check.
    """
    notes: list[str] = []
    good: _Made | None = None
    errors = []
    for row in exporters_of(export.format, export.options):
        other = path.with_name(f"other.{path.name}")  # beside one that is good already
        try:
            made = _made(export, row, path if good is None else other, simplifier, notify)
        except (GraphError, VerificationError) as error:
            errors.append(error)
            notes.append(f"{row.name} was not used: {error.message}")
            notify(notes[-1])
            simplifier = None  # it may be at work on this one
            continue
        finally:
            other.unlink(missing_ok=True)
        good, simplifier = good or made, None  # one works once
        if export.options.exporter != BOTH:
            break
        notes.append(made.line())
        notify(notes[-1])
    if good is None:
        raise _failure(errors)
    return good.noted([*notes, f"exporter {good.row.name}"])


def _failure(errors: Sequence[ResdeployError]) -> ResdeployError:
    """The only reason, or all of them in one sentence."""
    if len(errors) == 1:
        return errors[0]
    reasons = "; then ".join(error.message for error in errors)
    return VerificationError(reasons, hint=errors[0].hint)


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that passed, and what its sidecar says. seconds: without the checks."""

    row: Exporter
    seconds: float
    manifest: Manifest

    def line(self) -> str:
        """The figures by which exporters are compared."""
        nodes = self.manifest.history[-1].nodes
        shown = "" if nodes is None else f"{nodes} nodes, "
        checks = [item for item in self.manifest.verification if item.name.startswith("agreement")]
        apart = max(check.value for check in checks)
        size = f"{self.manifest.size_bytes / 1e6:.1f} MB"
        return f"{self.row.name}: {shown}{size}, {self.seconds:.1f} s, max_abs {apart:.1e}"

    def noted(self, notes: Sequence[str]) -> Manifest:
        """The manifest, with what was said of the exporters in its first step."""
        note = FORMATS[self.row.format].note
        export, *later = self.manifest.history
        step = export.model_copy(update={"notes": (*notes, *([note] if note else []))})
        return self.manifest.model_copy(update={"history": (step, *later)})


def _made(
    export: Export, row: Exporter, path: Path, simplifier: SimplifierChild | None, notify: Notify
) -> _Made:
    """Let one exporter write `path`, and check it.

    Raises:
        GraphError: what it made is no valid ONNX.
        VerificationError: it failed, or a check did.
    """
    make = load_target(row.target, extra="", why="the export")
    with ThreadPoolExecutor(max_workers=1) as pool:
        # PyTorch answers meanwhile, on another core; but not where exporters are compared.
        is_early = row.only_reads and export.options.exporter != BOTH
        early = pool.submit(lambda: export.trial) if is_early else None
        start = time.perf_counter()
        program = make(export.module, export.signature)
        graph = None if row.format != ONNX else _folded(program)
        seconds = time.perf_counter() - start
        trial = early or pool.submit(lambda: export.trial)
        promised = () if graph is None else graph_checks(program, graph, export.signature)
        if export.simplify:
            assert graph is not None  # it is for ONNX alone
            simplification = Simplification(program, child=simplifier)
            del program  # it is as large as the file
            with simplification as work:
                checks = _answers(export, row, work.passed, trial, promised)
                trials = Trials(images=lambda: export.trial.images, batches=export.batches)
                found = work.finished(path, trials, right=work.passed)
            manifest = _manifest(export, row, path, graph, checks)
            manifest = simplified_manifest(found, manifest, source_sha256=None, notify=notify)
        else:
            load_target(FORMATS[row.format].write, extra="", why="the export")(program, path)
            checks = _answers(export, row, path, trial, promised)
            manifest = _manifest(export, row, path, graph, checks)
    return _Made(row, seconds, manifest)


def _folded(model: ir.Model) -> GraphSummary:
    """Fold what exporters fold, where this one did not; the facts of the graph.

    Raises:
        GraphError: it is no valid ONNX.
    """
    apply_passes(model, FOLDING)
    check_graph(model)
    return summary.summary_of(model)


def _answers(
    export: Export, row: Exporter, path: Path, trial: Future[verify.Trial], more: Checks = ()
) -> Checks:
    """All checks of a file, those of its answers first, if every one holds.

    Raises:
        VerificationError: a check failed.
    """
    runtime = next(item for item in RUNTIMES if row.format in item.formats)
    factory = load_target(runtime.target, extra=runtime.extra, why="verifying an export")
    candidate: Runner = factory(path, threads=THREADS)
    with candidate as file:
        tolerance = verify.EXPORT
        checks = verify.trial_checks(file.run, trial.result(), tolerance)
        if not all(check.passed for check in checks):
            tolerance = export.amplified(tolerance)
            checks = verify.trial_checks(file.run, trial.result(), tolerance)
        checks += _real_checks(export, file, tolerance)
    checks += more
    verify.require(
        checks,
        f"the {FORMATS[row.format].name} export of {export.loaded.facts.reference} ({row.name})",
        "report this: the exporter and PyTorch disagree on this model",
    )
    return checks


def _real_checks(export: Export, file: Runner, tolerance: verify.Tolerance) -> Checks:
    """The same agreement on real images, where there are any."""
    if export.data is None:
        return ()
    require_image_channels(export.loaded.facts, export.preprocess)
    pixels = export.interface.pixels
    batches = (
        pixels_of(batch.images, export.preprocess) if pixels else batch.images
        for batch in export.data.batches(export.preprocess, min(_IMAGES, export.batches[-1]))
    )
    answered = ((images, export.expected(images)) for images in batches)
    return (verify.agreement_check("agreement-images", file.run, answered, tolerance),)


def _manifest(
    export: Export, row: Exporter, path: Path, graph: GraphSummary | None, checks: Checks
) -> Manifest:
    facts, signature = export.loaded.facts, export.signature
    dtype = "uint8" if signature.pixels else "float"
    images = TensorFacts(name=INPUT, dtype=dtype, shape=(BATCH, *signature.image_shape))
    answers = (BATCH, export.trial.answers.shape[1])
    step = HistoryStep(
        step="export",
        tools=package_versions(["torch", *(["onnxruntime"] if graph else [])]),
        source_sha256=facts.weights_sha256,
        nodes=None if graph is None else graph.nodes,
    )
    return Manifest(
        name=export.name,
        format=row.format,
        precision="fp32",
        **file_facts(path),
        opset=None if graph is None else graph.opset,
        inputs=(images,) if graph is None else graph.inputs,
        outputs=(TensorFacts(name=signature.output, dtype="float", shape=answers),)
        if graph is None
        else graph.outputs,
        model=facts,
        preprocess=export.preprocess,
        interface=export.interface,
        batch=export.batch,
        verification=checks,
        history=(step,),
    )
