"""A float artifact and its calibration table in, a verified INT8 file out.

As in `make`: `quantize_file` writes one file, verified, and returns what its sidecar says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import Artifact
from resdeploy.contracts import Notify, Progress, Source
from resdeploy.errors import DataError
from resdeploy.graph import Emitter
from resdeploy.graph.affine import LARGEST
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.validate import problems_of
from resdeploy.measure import verify
from resdeploy.measure.machine import WeightBits, package_versions
from resdeploy.pipeline.feeding import fed, noise_for
from resdeploy.pipeline.int8.calibration import require_same_graph
from resdeploy.pipeline.int8.correction import (
    IMAGES,
    Correction,
    apply_correction,
    correction_of,
)
from resdeploy.pipeline.int8.floats import Floats, Gains, floats_of
from resdeploy.pipeline.integers import int8_macs_share
from resdeploy.pipeline.make import (
    THREADS,
    Checks,
    file_facts,
    graph_image_shape,
    merged_checks,
)
from resdeploy.quantization.table import CalibrationTable, table_bytes
from resdeploy.records import (
    CalibrationFacts,
    Check,
    HistoryStep,
    Manifest,
    Preprocess,
    QuantizationFacts,
    QuantizeOptions,
)
from resdeploy.report.format import fraction_text
from resdeploy.runtimes import gradients
from resdeploy.runtimes.memory import return_memory

# Gates, and what cuts blocks of pixels, are no loss; less than this on integers is one.
_ON_INTEGERS = 0.999
# An INT8 graph this far from its float source has a misplaced pair or a wrong scale: sound
# ones measured 25 to 39 dB on trained and random ResNets, two broken ones 5 and 9.
MIN_SQNR_DB = 12.0
_GAIN_IMAGES = 16  # gains are means over all positions of each
_JUDGED_IMAGES = 8  # enough to tell the two apart, few enough to be quick


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be quantized, for whom and how.

    data, preprocess: the calibration images; None where there is only their table.
    """

    source: Artifact
    manifest: Manifest
    table: CalibrationTable
    emitter: Emitter
    how: QuantizeOptions
    bits: WeightBits
    threads: int
    data: Source | None
    preprocess: Preprocess | None

    def images(self, at_most: int) -> Iterator[NDArray[Any]] | None:
        """So many images, evenly spaced, one by one as the file takes them; None without images."""
        if self.data is None or self.preprocess is None:
            return None
        batches = self.data.batches(self.preprocess, 1, at_most)
        return (fed(batch.images, self.manifest) for batch in batches)

    def first_images(self, count: int) -> NDArray[np.float32] | None:
        """The first few images, float32 [N, C, H, W]; None where there are none at hand."""
        if self.data is None or self.preprocess is None:
            return None
        for batch in self.data.batches(self.preprocess, count):
            return batch.images
        raise DataError("there is no calibration image", hint="--data needs at least one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A Q/DQ graph in the making: any of its layers can still be left in float."""

    work: Work
    floats: Floats
    correction: Correction

    def model(self, keep: tuple[str, ...]) -> ir.Model:
        """The Q/DQ graph with the nodes of these names in float."""
        model = self.floats.model.clone()
        _emit(model, self.work, self.floats, keep)
        apply_correction(model, self.correction)
        return model


# Given a draft, the names of the nodes to leave in float, and what is to be said of them.
Keeping = Callable[[Draft], tuple[tuple[str, ...], tuple[str, ...]]]


def keep_as_asked(draft: Draft) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that the options name."""
    return draft.work.how.keep, ()


def quantize_file(
    work: Work,
    path: Path,
    *,
    keeping: Keeping = keep_as_asked,
    notify: Notify,
    progress: Progress,
) -> Manifest:
    """Put Q/DQ pairs by the target's rules, then hold the graph against its float source.

    Raises:
        VerificationError: the table is another graph's, or the result fails a named check.
    """
    require_same_graph(work.table, work.source)
    draft = _draft(work, progress)
    for step in draft.floats.left_out:
        notify(step)
    keep, told = keeping(draft)
    model = draft.model(keep)
    last = _last(model, draft)
    write_model(model, path)
    checks = (*_target_checks(work, path, notify), *_quantized_checks(work, path))
    verify.require(checks, "the INT8 graph", "report this, with the model")
    facts = QuantizationFacts(
        target=work.emitter.name,
        weight_bits=work.bits.bits,
        reason=work.bits.reason,
        kept=keep,
        steps=(*draft.floats.steps, *draft.floats.left_out, *_corrected(draft), *told, *last),
        int8_macs_share=int8_macs_share(path, work.manifest, work.emitter.runtime),
        calibration=CalibrationFacts(
            table_sha256=hashlib.sha256(table_bytes(work.table)).hexdigest(),
            method=work.how.method,
            data=work.table.header.data,
        ),
    )
    quantized = _quantized_manifest(work, path, facts, checks)
    tell_unfused(quantized, notify)
    return quantized


def _draft(work: Work, progress: Progress) -> Draft:
    limit = LARGEST[work.bits.bits]
    gains = _gains(work) if work.how.equalize else {}
    return_memory()  # a copy of the weights and the activations of an image, with gradients
    floats = floats_of(
        work.source,
        work.manifest,
        work.table,
        work.emitter,
        work.how,
        limit,
        gains,
    )
    correction: Correction = {}
    images = work.images(IMAGES)
    if images is not None and work.data is not None:
        model = floats.model.clone()
        _emit(model, work, floats, ())
        correction = correction_of(
            model,
            floats.model,
            images,
            min(work.data.facts().samples, IMAGES),
            progress=progress,
            grid=work.emitter.grid,
            how=work.how,
            limit=limit,
            threads=work.threads,
        )
    return Draft(work=work, floats=floats, correction=correction)


def _gains(work: Work) -> Gains | str:
    """How much noise in each tensor matters; or why it is not known."""
    images = work.images(_GAIN_IMAGES)
    if images is None:
        return "it needs --data"
    model = read_model(work.source.path)
    unknown = gradients.without_gradient(model)
    if unknown:
        return f"no gradient is known of {', '.join(unknown)}"
    layers = [node for node in model.graph if node.op_type in ("Conv", "Gemm")]
    names = {*work.table.tensors, *(str(node.outputs[0].name) for node in layers)}
    return gradients.gains_of(model, images, names)


def _emit(model: ir.Model, work: Work, floats: Floats, keep: tuple[str, ...]) -> None:
    rules = editor.rules_of(work.emitter)
    editor.quantize(model, floats.ranges, rules, weight_bits=work.bits.bits, keep=keep)


def _last(model: ir.Model, draft: Draft) -> tuple[str, ...]:
    """What the target is faster with, in place; what was done, in words."""
    changes = editor.rules_of(draft.work.emitter).last
    done = [change(model, draft.floats.pixels) for change in changes]
    return tuple(words for words in done if words is not None)


def _corrected(draft: Draft) -> tuple[str, ...]:
    """What was done to the layers, in words."""
    found = draft.correction.values()
    steps = {
        "round weights": len(found) if draft.work.how.round_weights else 0,
        "correct bias": sum(bool(row.shift.any()) for row in found),
    }
    return tuple(f"{name}: {count} layers" for name, count in steps.items() if count)


def tell_unfused(manifest: Manifest, notify: Notify) -> None:
    """Say how much of an INT8 graph the runtime of its target leaves in float."""
    facts = manifest.quantization
    share = None if facts is None else facts.int8_macs_share
    if facts is not None and share is not None and share < _ON_INTEGERS:
        notify(
            f"the runtime of {facts.target} computes {fraction_text(share)} of "
            "the multiply-accumulates on integers; the others stay float and cost speed"
        )


def _target_checks(work: Work, path: Path, notify: Notify) -> Checks:
    """Whether the target reads the graph as it is meant; what costs it speed or digits is told."""
    model, checks = read_model(path), editor.rules_of(work.emitter).checks
    misread = problems_of(model, [check for check in checks if check.misread])
    for problem in problems_of(model, [check for check in checks if not check.misread]):
        notify(f"{work.emitter.name}: {problem}")
    said = "; ".join(misread) or f"nothing that {work.emitter.name} would misread"
    return (verify.condition("target-reads-it", not misread, said),)


def _quantized_checks(work: Work, result: Path) -> Checks:
    """Float and INT8 graph on the same images, the latter with the arithmetic it spells out.

    What a CPU's kernels make of it is for `check` to say: the file may be for another CPU.
    Without images there is noise, of which only form and finiteness can be asked.
    """
    own = work.first_images(_JUDGED_IMAGES)
    images = _noise(work.manifest) if own is None else fed(own, work.manifest)
    with (
        runtimes.OrtRunner(work.source.path, threads=THREADS) as reference,
        runtimes.OrtRunner(
            result, threads=THREADS, optimization=runtimes.Optimization.NONE
        ) as candidate,
    ):
        expected, got = reference.run(images), candidate.run(images)
        one = candidate.run(images[:1])
    checks = (
        verify.condition("finite", bool(np.isfinite(got).all()), "no NaN or infinity"),
        verify.condition("batch-1-runs", one.shape == got[:1].shape, f"gives {list(one.shape)}"),
    )
    if own is None:
        return checks
    sqnr = sqnr_db(expected, got)
    judged = Check(
        name="sqnr-db",
        passed=sqnr >= MIN_SQNR_DB,
        value=sqnr,
        tolerance=MIN_SQNR_DB,
        detail=f"at least, on {len(images)} calibration images",
    )
    return (*checks, judged)


def _noise(manifest: Manifest) -> NDArray[Any]:
    return noise_for(manifest, graph_image_shape(manifest), _JUDGED_IMAGES)


def sqnr_db(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """10 log10 of the reference's energy over that of the difference; NaN stays NaN."""
    noise = float(np.square(candidate.astype(np.float64) - reference).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


def _quantized_manifest(
    work: Work, path: Path, facts: QuantizationFacts, checks: Checks
) -> Manifest:
    step = HistoryStep(
        step="quantize",
        tools=package_versions(["resdeploy", "onnx-ir", "onnxruntime", "scipy"]),
        source_sha256=work.source.sha256,
        notes=(f"{facts.weight_bits}-bit weights: {facts.reason}", *facts.steps),
    )
    return work.manifest.model_copy(
        update={
            "precision": "int8",
            **file_facts(path),
            "quantization": facts,
            "verification": merged_checks(work.manifest.verification, checks, "quantize"),
            "history": (*work.manifest.history, step),
        }
    )
