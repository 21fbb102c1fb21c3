"""Models and artifacts in, verified files with their manifests out.

Each function writes one file to the path it is given and returns what its sidecar says;
it raises, and the caller's path is worthless, where a named check fails. Giving a file its
final name is the caller's business (`artifact.publish`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.artifact import Artifact, digest_of, scratch_folder, sha256_of_file
from resdeploy.contracts import Notify, Progress, Source
from resdeploy.errors import ChildFailedError, DataError, GraphError, UsageError, VerificationError
from resdeploy.formats.onnx import BATCH, INPUT, OPSET, OUTPUT, onnx_from_module
from resdeploy.graph import EMITTERS, observe, simplify, summary
from resdeploy.graph.files import read_model, write_model
from resdeploy.measure import verify
from resdeploy.measure.machine import WeightBits, package_versions
from resdeploy.models.reference import LoadedModel
from resdeploy.quantization import OBSERVERS
from resdeploy.quantization.calibrate import calibrate
from resdeploy.records import (
    BatchProfile,
    CalibrationFacts,
    CalibrationTable,
    Check,
    Fusion,
    HistoryStep,
    Manifest,
    ModelFacts,
    Preprocess,
    QuantizationFacts,
)
from resdeploy.runtimes import EagerRunner, OrtRunner, optimized_operators
from resdeploy.runtimes.ort import Optimization
from resdeploy.table import load_target

Checks = tuple[Check, ...]

# Verification is about numbers, not speed; one thread keeps it the same on every machine.
_THREADS = 1

# An INT8 graph this far from its float source has a misplaced pair or a wrong scale: sound
# ones measure 20 to 40 dB on trained and on random ResNets, broken ones 0 to 8.
MIN_SQNR_DB = 12.0
_JUDGED_IMAGES = 8  # enough to tell the two apart, few enough to be quick


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
            hint="it can be exported, simplified and timed, but not calibrated or checked here",
        )


def first_images(source: Source, preprocess: Preprocess) -> NDArray[np.float32]:
    """The first few images of a source, float32 [N, C, H, W]: what an INT8 graph is tried on.

    Raises:
        DataError: there is none.
    """
    for batch in source.batches(preprocess, _JUDGED_IMAGES):
        return batch.images
    raise DataError("there is no calibration image", hint="--data needs at least one")


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
        EagerRunner(loaded.module, threads=_THREADS) as eager,
        OrtRunner(path, threads=_THREADS) as ort,
    ):
        batches = verify.batches_of(batch)
        checks = verify.agreement_checks(eager.run, ort.run, shape, verify.EXPORT, batches)
    checks += _graph_checks(path)
    verify.require(
        checks,
        f"the ONNX export of {loaded.facts.reference}",
        "report this: the exporter and PyTorch disagree on this model",
    )
    step = HistoryStep(
        step="export",
        tools=package_versions(["torch", "onnxruntime"]),
        source_sha256=loaded.facts.weights_sha256,
        notes=("torch.onnx.export, tracing exporter",),
    )
    manifest = _manifest(path, name, loaded.facts, preprocess, checks, (step,))
    return manifest.model_copy(update={"batch": batch})


def _graph_checks(path: Path) -> Checks:
    """Names and dynamic batch as promised; no BatchNorm left behind a convolution."""
    model = read_model(path)
    facts = summary.summary_of(model)
    tensors = (*facts.inputs, *facts.outputs)
    unfolded = [node for node in model.graph if _is_batchnorm_behind_conv(node)]
    names = [tensor.name for tensor in tensors]
    first = [tensor.shape[0] if tensor.shape else None for tensor in tensors]
    return (
        verify.condition("names", names == [INPUT, OUTPUT], f"inputs and outputs are {names}"),
        verify.condition("dynamic-batch", first == [BATCH, BATCH], f"first dimensions {first}"),
        verify.condition("batchnorm-folded", not unfolded, f"{len(unfolded)} BatchNorm left"),
    )


def _is_batchnorm_behind_conv(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
    convolved = producer is not None and producer.op_type == "Conv"
    return node.op_type == "BatchNormalization" and convolved


def simplify_file(
    source: Artifact,
    manifest: Manifest,
    path: Path,
    *,
    notify: Notify,
    timeout_s: float = simplify.TIMEOUT_S,
    module: str = simplify.CHILD,
) -> Manifest:
    """Simplify with onnxsim in a child process; where that fails, say so and copy the source.

    A graph that answers differently, lost a name or its dynamic batch counts as a failure.
    """
    shape = graph_image_shape(manifest)
    try:
        simplify.simplify_in_child(source.path, path, timeout_s=timeout_s, module=module)
        checks = _equality_checks(source.path, path, shape)
        verify.require(checks, "the simplified graph", "the unsimplified graph is used")
        note = "onnxsim"
    except (ChildFailedError, GraphError, VerificationError) as error:
        note = f"not simplified: {error.message}"
        notify(f"{note}; the unsimplified graph is used")
        shutil.copyfile(source.path, path)
        checks = _equality_checks(source.path, path, shape)
    step = HistoryStep(
        step="simplify",
        tools=package_versions(["onnxsim", "onnxruntime"]),
        source_sha256=source.sha256,
        notes=(note,),
    )
    return manifest.model_copy(
        update={
            "sha256": sha256_of_file(path),
            "size_bytes": path.stat().st_size,
            "verification": _merged(manifest.verification, checks, "simplify"),
            "history": (*manifest.history, step),
        }
    )


def _equality_checks(source: Path, result: Path, shape: Shape) -> Checks:
    before, after = summary.summary_of(read_model(source)), summary.summary_of(read_model(result))
    with (
        OrtRunner(source, threads=_THREADS) as reference,
        OrtRunner(result, threads=_THREADS) as candidate,
    ):
        checks = verify.agreement_checks(reference.run, candidate.run, shape, verify.SIMPLIFY)
    same = (before.inputs, before.outputs) == (after.inputs, after.outputs)
    return (
        *checks,
        verify.condition("same-inputs-outputs", same, "names, types, shapes and dynamic batch"),
    )


def _merged(earlier: Checks, checks: Checks, step: str) -> Checks:
    named = (check.model_copy(update={"name": f"{step}.{check.name}"}) for check in checks)
    return (*earlier, *named)


def table_for(
    source: Artifact,
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
        with OrtRunner(observed, threads=threads) as runner:
            ranges = calibrate(
                runner.run_all,
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
    table: CalibrationTable,
    path: Path,
    *,
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
    checks = _quantized_checks(source.path, path, images)
    verify.require(checks, "the INT8 graph", "report this, with the model")
    fusions = _fusions(source.path, path)
    for fusion in fusions:
        if fusion.fused < fusion.nodes:
            notify(
                f"ONNX Runtime runs {fusion.fused} of {fusion.nodes} {fusion.operator} nodes on "
                "integers; the others stay float and cost speed"
            )
    facts = QuantizationFacts(
        target=target,
        weight_bits=bits.bits,
        reason=bits.reason,
        fusions=fusions,
        calibration=CalibrationFacts(
            table_sha256=digest_of(table.model_dump(mode="json")),
            method=table.method,
            data=table.data,
        ),
    )
    return _quantized_manifest(source, manifest, path, facts, checks)


def _quantized_checks(source: Path, result: Path, images: NDArray[np.float32]) -> Checks:
    """Float and INT8 graph on the same images, the latter with the arithmetic it spells out.

    What a CPU's kernels make of it is for `check` to say: the file may be for another CPU.
    """
    with (
        OrtRunner(source, threads=_THREADS) as reference,
        OrtRunner(result, threads=_THREADS, optimization=Optimization.NONE) as candidate,
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
    fused = optimized_operators(result)
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
            "sha256": sha256_of_file(path),
            "size_bytes": path.stat().st_size,
            "quantization": facts,
            "verification": _merged(manifest.verification, checks, "quantize"),
            "history": (*manifest.history, step),
        }
    )


def _manifest(
    path: Path,
    name: str,
    facts: ModelFacts,
    preprocess: Preprocess,
    checks: Checks,
    history: tuple[HistoryStep, ...],
) -> Manifest:
    graph = summary.summary_of(read_model(path))
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
