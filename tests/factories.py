"""Small honest records: a run of a trained resnet20 on labelled digits, part by part."""

from __future__ import annotations

import math
import random
from typing import Any

from resdeploy.records import (
    Baseline,
    BaselineTarget,
    DataFacts,
    DriftRecord,
    Flip,
    Judgement,
    LatencyRecord,
    MachineFacts,
    ModelFacts,
    Preprocess,
    Rule,
    RunResult,
    StepResult,
    TargetResult,
    TargetStatus,
    Verdict,
)

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sha(text: str) -> str:
    """A stand-in for a sha256: 64 hex digits that depend on the text."""
    return random.Random(text).randbytes(32).hex()


def machine(**changed: Any) -> MachineFacts:
    facts = {
        "cpu": "AMD EPYC 7B13",
        "cores": 2,
        "flags": ("avx2", "fma"),
        "memory_gib": 8,
        "os": "Linux 6.1",
        "python": "3.11.7",
        "versions": {"onnxruntime": "1.20.1", "torch": "2.6.0", "resdeploy": "0.1.0"},
    }
    return MachineFacts(**(facts | changed))


def model(**changed: Any) -> ModelFacts:
    facts = {
        "reference": "resnet20",
        "weights": "weights/resnet20-digits.safetensors",
        "weights_sha256": sha("weights"),
        "trained": True,
        "num_classes": 10,
        "in_channels": 1,
        "params": 269_434,
    }
    return ModelFacts(**(facts | changed))


def data(**changed: Any) -> DataFacts:
    facts = {
        "reference": "digits-evaluation.npz",
        "samples": 400,
        "labelled": True,
        "synthetic": False,
        "digest": sha("evaluation"),
        "classes": CLASSES,
    }
    return DataFacts(**(facts | changed))


def target(name: str = "ort-int8", **changed: Any) -> TargetResult:
    facts = {
        "name": name,
        "status": TargetStatus.DONE,
        "format": "onnx",
        "precision": "int8",
        "runtime": "ort",
        "path": f"artifacts/{name}.onnx",
        "sha256": sha(name),
        "size_bytes": 312_480,
        "chain": ("export", "simplify", name),
    }
    return TargetResult(**(facts | changed))


def drift(name: str = "ort-int8", **changed: Any) -> DriftRecord:
    facts = {
        "name": name,
        "path": f"artifacts/{name}.onnx",
        "sha256": sha(name),
        "samples": 400,
        "nonfinite": 0,
        "max_abs": 1.25,
        "mean_abs": 0.21,
        "sqnr_db": 27.4,
        "cosine_min": 0.9931,
        "top1_agreement": 0.995,
        "flips": 2,
        "flipped": (
            Flip(id="image-0017", reference=3, candidate=8, label=3),
            Flip(id="image-0311", reference=9, candidate=7, label=7),
        ),
        "top1_reference": 0.9875,
        "top1_candidate": 0.985,
        "top5_reference": 1.0,
        "top5_candidate": 1.0,
        "agreement_lower_95": 0.982,
        "agreement_upper_95": 0.9986,
        "top1_lost": 2,
        "top1_gained": 1,
        "top1_drop_lower_95": -0.0089,
        "top1_drop_upper_95": 0.0155,
        "mcnemar_p": 1.0,
        "ties": 0,
        "kl_mean": 0.002,
        "kl_max": 0.31,
        "data": data(),
        "trained": True,
    }
    return DriftRecord(**(facts | changed))


def identical(name: str, **changed: Any) -> DriftRecord:
    """Drift of a candidate whose outputs are the reference's, bit for bit."""
    same = {
        "max_abs": 0.0,
        "mean_abs": 0.0,
        "sqnr_db": None,
        "cosine_min": 1.0,
        "top1_agreement": 1.0,
        "flips": 0,
        "flipped": (),
        "top1_candidate": 0.9875,
    }
    return drift(name, **(same | changed))


def samples_ns(p50_ms: float, count: int = 50, spread: float = 0.03) -> tuple[int, ...]:
    """Timings as machines give them: a sharp left edge and a tail to the right."""
    draw = random.Random(f"{p50_ms} {count} {spread}")
    return tuple(
        round(p50_ms * 1e6 * (1 - spread / 2 + spread * draw.expovariate(1.4)))
        for _ in range(count)
    )


def latency(
    name: str = "ort-int8", batch: int = 1, *, around_ms: float = 0.41, **changed: Any
) -> LatencyRecord:
    """Timings drawn around a time at batch 1, their figures computed from the samples."""
    times = samples_ns(around_ms * batch**0.8)
    ordered = sorted(times)

    def below(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1] / 1e6

    facts = {
        "name": name,
        "path": f"artifacts/{name}.onnx",
        "runtime": "ort",
        "batch": batch,
        "threads": 2,
        "warmup": 10,
        "samples_ns": times,
        "p50_ms": below(0.5),
        "p90_ms": below(0.9),
        "p99_ms": below(0.99),
        "images_per_s": batch / below(0.5) * 1e3,
        "speedup": 3.2,
        "spread": 0.03,
    }
    return LatencyRecord(**(facts | changed))


def judgement(**changed: Any) -> Judgement:
    facts = {"verdict": Verdict.PASS, "reason": "all 0 checks passed", "findings": ()}
    return Judgement(**(facts | changed))


RULES = (
    Rule(metric="drift.top1_agreement", min=0.99),
    Rule(metric="drift.top1_drop", max=0.01),
    Rule(metric="bench.speedup", targets=("ort-int8",), batches=(1,), min=1.5),
    Rule(metric="bench.p50_vs_baseline", targets=("ort-int8",), max=1.05),
    Rule(metric="artifact.size_bytes", targets=("ort-int8",), max=400_000),
)

RECIPE = {
    "schema": 1,
    "name": "resnet20-digits",
    "seed": 0,
    "model": {"reference": "resnet20", "weights": "weights/resnet20-digits.safetensors"},
    "input": {"size": 32, "batch": {"min": 1, "opt": 8, "max": 32}},
    "quantization": {"method": "minmax"},
    "targets": [
        {"name": "onnx-fp32", "format": "onnx", "precision": "fp32", "runtime": "ort"},
        {"name": "ort-int8", "format": "onnx", "precision": "int8", "runtime": "ort"},
    ],
    "bench": {"batches": [1, 8], "rounds": 50},
    "gate": [{"metric": "drift.top1_agreement", "min": 0.99}],
    "data": {
        "calibration": {"npz": "digits-calibration.npz", "samples": 256},
        "evaluation": {"npz": "digits-evaluation.npz"},
    },
}


def steps() -> tuple[StepResult, ...]:
    rows = (
        ("build", "resnet20", True, 0.0),
        ("export", "onnx", True, 0.0),
        ("simplify", "onnx", True, 0.0),
        ("calibrate", "minmax, 256 images", False, 1.31),
        ("quantize", "ort-int8", False, 0.42),
        ("drift", "ort-int8", False, 0.88),
        ("bench", "batches 1, 8", False, 6.4),
    )
    return tuple(
        StepResult(kind=kind, label=label, key=sha(kind + label), reused=reused, seconds=seconds)
        for kind, label, reused, seconds in rows
    )


def run_result(**changed: Any) -> RunResult:
    """A whole run: two targets that ran, one that was skipped, two batch sizes, a reference."""
    skipped = target(
        "trt-int8",
        status=TargetStatus.SKIPPED,
        reason="tensorrt is not installed",
        format="engine",
        precision="int8-fp16",
        runtime="tensorrt",
        path=None,
        sha256=None,
        size_bytes=None,
        chain=("export", "simplify"),
    )
    fp32 = target(
        "onnx-fp32", precision="fp32", size_bytes=1_094_207, chain=("export", "onnx-fp32")
    )
    near = {"sqnr_db": 121.3, "max_abs": 2.4e-6, "mean_abs": 3.1e-7, "cosine_min": 0.99999994}
    facts = {
        "name": "resnet20-digits",
        "recipe": RECIPE,
        "machine": machine(),
        "model": model(),
        "preprocess": Preprocess(size=32, mean=(0.5,), std=(0.5,), channels="L"),
        "calibration": data(
            reference="digits-calibration.npz", samples=256, digest=sha("calibration")
        ),
        "evaluation": data(),
        "steps": steps(),
        "targets": (fp32, target(), skipped),
        "drift": (
            identical("export"),
            identical("simplify", **near),
            identical("onnx-fp32", **near),
            drift("ort-int8"),
        ),
        "bench": tuple(
            latency(name, batch, around_ms=time_ms, speedup=1.34 / time_ms, runtime=runtime)
            for batch in (1, 8)
            for name, time_ms, runtime in (
                ("reference", 1.34, "eager"),
                ("onnx-fp32", 0.62, "ort"),
                ("ort-int8", 0.41, "ort"),
            )
        ),
        "rules": RULES,
        "judgement": judgement(),
    }
    return RunResult(**(facts | changed))


def baseline(**changed: Any) -> Baseline:
    facts = {
        "name": "resnet20-digits",
        "machine": machine(),
        "evaluation": data(),
        "targets": (
            BaselineTarget(
                name="ort-int8",
                sha256=sha("ort-int8"),
                metrics={
                    "bench.p50_ms@1": 0.41,
                    "bench.p50_ms@8": 2.2,
                    "bench.p99_ms@1": 0.5,
                    "bench.p99_ms@8": 2.6,
                    "artifact.size_bytes": 312_480.0,
                    "drift.top1_candidate": 0.985,
                },
            ),
        ),
    }
    return Baseline(**(facts | changed))
