"""A float32 ONNX file in, a verified float16 one out.

As in `make`: a function writes one file, verified, and returns what its sidecar says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import Artifact, scratch_folder
from resdeploy.contracts import Notify
from resdeploy.errors import listed
from resdeploy.graph import EMITTERS, reduce, summary
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.fp16 import LARGEST, cast_to_fp16
from resdeploy.graph.rounding import with_rounding
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.pipeline.feeding import noise_for, retyped
from resdeploy.pipeline.integers import int8_macs_share
from resdeploy.pipeline.make import THREADS, Checks, file_facts, graph_image_shape, merged_checks
from resdeploy.records import (
    CastOptions,
    Fp16Facts,
    GraphSummary,
    HistoryStep,
    Manifest,
    QuantizationFacts,
)


def cast_file(
    source: Artifact, manifest: Manifest, path: Path, *, options: CastOptions, notify: Notify
) -> Manifest:
    """Cast `source` to float16, and hold the result against it.

    Both as ONNX Runtime runs it on a CPU, in float32 inside, and with every value rounded to
    float16, as a GPU stores them.

    Raises:
        GraphError: a weight is beyond float16, or nothing is called what is to be kept.
        VerificationError: the result answers otherwise; nothing is written.
    """
    model = read_model(source.path)
    before = summary.summary_of(model)
    facts = cast_to_fp16(model, io=options.io.value, keep=options.keep)
    write_model(model, path)
    after = summary.summary_of(model)
    del model
    recorded = Fp16Facts(
        io=options.io,
        weights=facts.weights,
        flushed=facts.flushed,
        subnormal=facts.subnormal,
        kept=facts.kept,
    )
    cast = manifest.model_copy(
        update={
            "precision": after.precision,
            **file_facts(path),
            "opset": after.opset,
            "inputs": after.inputs,
            "outputs": after.outputs,
            "fp16": recorded,
            "quantization": _recounted(path, manifest),
        }
    )
    names = _names_kept(before, after)
    verify.require(names, "the float16 graph", "report this, with the model")
    checks = _checks(source.path, manifest, path, cast) + names
    step = HistoryStep(
        step="cast",
        tools=package_versions(["resdeploy", "onnx-ir", "onnxruntime"]),
        source_sha256=source.sha256,
        nodes=after.nodes,
        notes=(_sentence(recorded),),
    )
    if recorded.flushed:
        notify(_sentence(recorded))
    merged = merged_checks(manifest.verification, checks, "cast")
    return cast.model_copy(update={"verification": merged, "history": (*manifest.history, step)})


def _recounted(path: Path, manifest: Manifest) -> QuantizationFacts | None:
    """How a graph was quantized, with what the runtime makes of it in float16."""
    facts = manifest.quantization
    if facts is None:
        return None
    share = int8_macs_share(path, manifest, EMITTERS[facts.target].runtime)
    return facts.model_copy(update={"int8_macs_share": share})


def _sentence(facts: Fp16Facts) -> str:
    said = f"{facts.weights} weights became float16: {facts.flushed} of them zero"
    said += f", {facts.subnormal} subnormal, with fewer digits"
    return said + (f"; in float32 stay {listed(facts.kept)}" if facts.kept else "")


def _names_kept(before: GraphSummary, after: GraphSummary) -> Checks:
    old, new = (
        [(tensor.name, tensor.shape) for tensor in (*facts.inputs, *facts.outputs)]
        for facts in (before, after)
    )
    return (verify.condition("same-inputs-outputs", old == new, "names, shapes, dynamic batch"),)


def _checks(source: Path, manifest: Manifest, path: Path, cast: Manifest) -> Checks:
    """Both graphs on the same images, each as it takes them.

    Raises:
        VerificationError: a check failed.
    """
    tolerance = verify.FP16 if manifest.precision == "fp32" else verify.INT8_FP16
    images = noise_for(manifest, graph_image_shape(manifest), verify.IMAGES)

    def expected(images: NDArray[Any]) -> NDArray[np.float32]:
        with _as_written(source) as reference:
            answers: NDArray[np.float32] = reference.run(images)
            return answers

    trial = verify.trial_of(expected, images, verify.batches_of(manifest.batch))
    with _as_written(path) as candidate:
        checks = verify.trial_checks(
            lambda images: candidate.run(retyped(images, cast)).astype(np.float32),
            trial,
            tolerance,
        )
    checks = merged_checks(checks, _rounded_checks(path, trial, tolerance), "rounded")
    beyond = _beyond(source, images) if any(not check.passed for check in checks) else ()
    verify.require(checks, "the float16 graph", _hint(beyond))
    return checks


def _as_written(path: Path) -> runtimes.OrtRunner:
    """A graph without ONNX Runtime's optimizations, for which no float16 graph is meant.

    Measured with 1.31 on an INT8 resnet20 in float16, whose answers to noise are up to 21: as it is
    written they differ from the INT8 graph's by 0.4, with the optimizations by 13.
    """
    none = runtimes.Optimization.NONE
    return runtimes.OrtRunner(path, threads=THREADS, optimization=none)


def _rounded_checks(path: Path, trial: verify.Trial, tolerance: verify.Tolerance) -> Checks:
    """The same of the graph's image that rounds every value."""
    model = read_model(path)
    with_rounding(model)
    with scratch_folder() as folder:
        rounding = folder / "rounding.onnx"
        write_model(model, rounding)
        with _as_written(rounding) as rounded:
            return verify.trial_checks(rounded.run, trial, tolerance)


def _hint(beyond: Sequence[str]) -> str:
    if not beyond:
        return "keep some of its nodes in float32 with --keep, or ship it as fp32"
    return f"values beyond {LARGEST:g} come out of {listed(beyond)}: keep them with --keep"


def _beyond(source: Path, images: NDArray[Any]) -> tuple[str, ...]:
    """The nodes of a float32 graph that write or read values beyond float16, in their order."""
    model = read_model(source)
    common.ShapeInferencePass()(model)  # only values that are known to be floats are looked at
    nodes = list(model.graph)
    floats = [
        value
        for node in nodes
        for value in node.outputs
        if value.name and value.dtype == ir.DataType.FLOAT
    ]
    readers = {
        value.name: {value.producer(), *(use.node for use in value.uses())} for value in floats
    }
    reduce.with_reductions(model, [str(name) for name in readers], ("ReduceMin", "ReduceMax"))
    flat = [np.full_like(images[:1], value) for value in verify.CONSTANTS.values()]
    with scratch_folder() as folder:
        observed = folder / "observed.onnx"
        write_model(model, observed)
        with runtimes.OrtRunner(observed, threads=THREADS) as runner:
            found = [runner.run_all(some) for some in (images, *flat)]
    touched: set[ir.Node | None] = set()
    for name, own in readers.items():
        ends = (f"{name}.ReduceMin", f"{name}.ReduceMax")
        if any(abs(float(answers[end])) > LARGEST for answers in found for end in ends):
            touched |= own
    return tuple(str(node.name or node.outputs[0].name) for node in nodes if node in touched)
