"""A float artifact and images in, its calibration table and its INT8 file out.

As in `make`: a function writes one file, verified, and returns what its sidecar says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import Artifact, scratch_folder, sha256_of_text
from resdeploy.contracts import Notify, Progress, Source
from resdeploy.errors import DataError, VerificationError
from resdeploy.graph import EMITTERS, observe, summary
from resdeploy.graph.files import read_model, write_model
from resdeploy.measure import verify
from resdeploy.measure.machine import WeightBits, package_versions
from resdeploy.pipeline import paid
from resdeploy.pipeline.feeding import fed
from resdeploy.pipeline.make import THREADS, Checks, file_facts, merged_checks
from resdeploy.quantization import OBSERVERS
from resdeploy.quantization.calibrate import calibrate
from resdeploy.records import (
    CalibrationFacts,
    CalibrationTable,
    Check,
    Fusion,
    HistoryStep,
    Manifest,
    Preprocess,
    QuantizationFacts,
)
from resdeploy.report.format import fraction_text
from resdeploy.table import load_target

# An INT8 graph this far from its float source has a misplaced pair or a wrong scale: sound
# ones measured 25 to 39 dB on trained and random ResNets, two broken ones 5 and 9.
MIN_SQNR_DB = 12.0
_JUDGED_IMAGES = 8  # enough to tell the two apart, few enough to be quick


def first_images(source: Source, preprocess: Preprocess) -> NDArray[np.float32]:
    """The first few images of a source, float32 [N, C, H, W]: what an INT8 graph is tried on.

    Raises:
        DataError: there is none.
    """
    for batch in source.batches(preprocess, _JUDGED_IMAGES):
        return batch.images
    raise DataError("there is no calibration image", hint="--data needs at least one")


def table_for(
    source: Artifact,
    manifest: Manifest,
    preprocess: Preprocess,
    data: Source,
    *,
    target: str,
    method: str,
    threads: int,
    progress: Progress,
) -> CalibrationTable:
    """Run the images through the float graph, one at a time, and keep every tensor's range."""
    emitter, observer = EMITTERS[target], OBSERVERS[method]
    model = read_model(source.path)
    tensors = load_target(emitter.observed, extra="cpu", why=f"the target {target}")(model)
    observe.with_reductions(model, tensors, observer.reductions)
    with scratch_folder() as folder:
        observed = folder / "observed.onnx"
        write_model(model, observed)
        del model
        with runtimes.OrtRunner(observed, threads=threads) as runner:
            ranges = calibrate(
                lambda images: runner.run_all(fed(images, manifest)),
                tensors,
                observer.reductions,
                load_target(observer.target, extra="cpu", why=f"the method {method}"),
                progress(data.batches(preprocess, 1), "calibrating", data.facts().samples),
            )
    return CalibrationTable(
        graph_sha256=source.sha256, method=method, data=data.facts(), ranges=ranges
    )


def quantize_file(
    source: Artifact,
    manifest: Manifest,
    path: Path,
    *,
    table: CalibrationTable,
    target: str,
    bits: WeightBits,
    images: NDArray[np.float32],
    notify: Notify,
) -> Manifest:
    """Put Q/DQ pairs by the target's rules, then hold the graph against its float source.

    images: float32 [N, C, H, W], some of those it was calibrated on.

    Raises:
        VerificationError: the table is another graph's, or the result fails a named check.
    """
    if table.graph_sha256 != source.sha256:
        raise VerificationError(
            f"the calibration table was made for graph {table.graph_sha256[:12]}…, "
            f"this one is {source.sha256[:12]}…",
            hint="calibrate this graph",
        )
    model = read_model(source.path)
    emit = load_target(EMITTERS[target].target, extra="cpu", why=f"the target {target}")
    emit(model, table.ranges, weight_bits=bits.bits)
    write_model(model, path)
    checks = _quantized_checks(source.path, path, fed(images, manifest))
    verify.require(checks, "the INT8 graph", "report this, with the model")
    fusions = _fusions(source.path, path)
    facts = QuantizationFacts(
        target=target,
        weight_bits=bits.bits,
        reason=bits.reason,
        fusions=fusions,
        int8_macs_share=paid.int8_macs_share(path, manifest, EMITTERS[target].runtime),
        calibration=CalibrationFacts(
            table_sha256=sha256_of_text(table.to_json()),
            method=table.method,
            data=table.data,
        ),
    )
    quantized = _quantized_manifest(source, manifest, path, facts, checks)
    tell_unfused(quantized, notify)
    return quantized


def tell_unfused(manifest: Manifest, notify: Notify) -> None:
    """Say how much of an INT8 graph the runtime of its target leaves in float."""
    facts = manifest.quantization
    if facts is not None and facts.int8_macs_share is not None and facts.int8_macs_share < 1:
        notify(
            f"{EMITTERS[facts.target].runtime} computes {fraction_text(facts.int8_macs_share)} of "
            "the multiply-accumulates on integers; the others stay float and cost speed"
        )


def _quantized_checks(source: Path, result: Path, images: NDArray[Any]) -> Checks:
    """Float and INT8 graph on the same images, the latter with the arithmetic it spells out.

    What a CPU's kernels make of it is for `check` to say: the file may be for another CPU.
    """
    with (
        runtimes.OrtRunner(source, threads=THREADS) as reference,
        runtimes.OrtRunner(
            result, threads=THREADS, optimization=runtimes.Optimization.NONE
        ) as candidate,
    ):
        expected, got = reference.run(images), candidate.run(images)
        one = candidate.run(images[:1])
    noise = float(np.square(got.astype(np.float64) - expected).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    sqnr = np.inf if noise == 0 else 10 * np.log10(max(signal, 1e-300) / noise)
    return (
        verify.condition("finite", bool(np.isfinite(got).all()), "no NaN or infinity"),
        verify.condition("batch-1-runs", one.shape == got[:1].shape, f"gives {list(one.shape)}"),
        Check(
            name="sqnr-db",
            passed=bool(sqnr >= MIN_SQNR_DB),
            value=float(sqnr),
            tolerance=MIN_SQNR_DB,
            detail=f"at least, on {len(images)} calibration images",
        ),
    )


def _fusions(source: Path, result: Path) -> tuple[Fusion, ...]:
    """How many convolutions and additions ONNX Runtime runs on integers."""
    floats = summary.summary_of(read_model(source)).operators
    fused = runtimes.optimized_operators(result)
    return tuple(
        Fusion(operator=operator, nodes=floats[operator], fused=fused[f"QLinear{operator}"])
        for operator in ("Conv", "Add")
        if operator in floats
    )


def _quantized_manifest(
    source: Artifact, manifest: Manifest, path: Path, facts: QuantizationFacts, checks: Checks
) -> Manifest:
    step = HistoryStep(
        step="quantize",
        tools=package_versions(["resdeploy", "onnx-ir", "onnxruntime"]),
        source_sha256=source.sha256,
        notes=(f"{facts.weight_bits}-bit weights: {facts.reason}",),
    )
    return manifest.model_copy(
        update={
            "precision": "int8",
            **file_facts(path),
            "quantization": facts,
            "verification": merged_checks(manifest.verification, checks, "quantize"),
            "history": (*manifest.history, step),
        }
    )
