"""An INT8 file and its float source in, whether INT8 pays on this machine out."""

from __future__ import annotations

import contextlib

from resdeploy.artifact import Artifact
from resdeploy.contracts import Notify, Runner
from resdeploy.measure.latency import measure_latency
from resdeploy.pipeline.compare import Candidate, own_runner
from resdeploy.pipeline.feeding import noise_for
from resdeploy.pipeline.integers import installed
from resdeploy.pipeline.make import graph_image_shape
from resdeploy.records import Paid
from resdeploy.report.format import fraction_text, ms_text, ratio_text

_WARMUP = 3
_ROUNDS = 15
_SECONDS = 1.0  # a resnet50 takes another one to be loaded twice
_MOST = 0.95  # of the multiply-accumulates: with so many on integers, the rest is not the reason


def paid(floats: Artifact, quantized: Artifact, runtime: str, threads: int) -> Paid | None:
    """Both files timed in turn, one image at a time; None where the runtime is not here.

    Raises:
        GraphError: the runtime cannot run one of them.
    """
    if installed(runtime) is None:
        return None
    assert quantized.manifest is not None  # we made it
    manifests = {"float": floats.manifest or quantized.manifest, "int8": quantized.manifest}
    shape = graph_image_shape(quantized.manifest)
    images = {name: [noise_for(manifest, shape, 1)] for name, manifest in manifests.items()}
    with contextlib.ExitStack() as stack:
        runners: dict[str, Runner] = {
            name: stack.enter_context(own_runner(_candidate(name, artifact, runtime), threads))
            for name, artifact in (("float", floats), ("int8", quantized))
        }
        timings = measure_latency(runners, images, rounds=_ROUNDS, warmup=_WARMUP, limit_s=_SECONDS)
    facts = quantized.manifest.quantization
    return Paid(
        runtime=runtime,
        threads=threads,
        rounds=len(timings["int8"].samples_ns),
        float_p50_ms=timings["float"].p50_ms,
        int8_p50_ms=timings["int8"].p50_ms,
        ratio=timings["int8"].p50_ms / timings["float"].p50_ms,
        int8_macs_share=None if facts is None else facts.int8_macs_share,
        note=timings["int8"].note or timings["float"].note,
    )


def _candidate(name: str, artifact: Artifact, runtime: str) -> Candidate:
    return Candidate(name=name, artifact=artifact, runtime=runtime, shown=str(artifact.path))


def told(found: Paid) -> str:
    """How long INT8 takes beside FP32; where it is not faster, why."""
    said = (
        f"INT8 takes {ratio_text(found.ratio)} as long as FP32 here "
        f"({ms_text(found.int8_p50_ms)} and {ms_text(found.float_p50_ms)}, batch 1, "
        f"{found.runtime}, {found.threads} thread{'s' * (found.threads > 1)})"
    )
    share = found.int8_macs_share
    if share is not None:
        said += f", with {fraction_text(share)} of the multiply-accumulates on integers"
    if found.ratio >= 1:
        said += f": {_reason(share)}"
    return f"{said}; {found.note}" if found.note else said


def _reason(share: float | None) -> str:
    if share is not None and share < _MOST:
        return "what stays float, and going to and fro between the two, costs more than is gained"
    return "on this machine, for this model, the float file is the one to ship"


def tell_unpaid(name: str, found: Paid, notify: Notify) -> None:
    """Warn where INT8 is not faster than its float source."""
    if found.ratio >= 1:
        notify(f"{name}: {told(found)}")
