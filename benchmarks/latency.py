"""One resnet50 image takes ONNX Runtime 0.6 of PyTorch's time, and INT8 0.6 of that.

    python benchmarks/latency.py

Claim: resnet50, batch 1, two threads, in one run: ort INT8 takes at
most 0.6 of ort FP32, and ort FP32 at most 0.6 of eager.

Method: the product's own `bench`: eager, FP32 and INT8 interleaved round by round in one
process on the same input, an untimed inference before each timed one; ratios of medians.
Weights are seeded random ones and INT8 is calibrated on synthetic images. That is fine here:
which kernels run, and on how many numbers, depends on the graph and on the CPU, not on the
values of weights and scales. It would not be fine for accuracy.

How to read it: the ratios are the result; milliseconds belong to the machine that is named.
`channels` keeps every sample, p50/p90/p99, the spread (1.4826 · MAD / median) and a note where
the machine was not quiet; with such a note, run it again when it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import Findings, at_most, conclude, parser_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resdeploy.records import LatencyRecord

RATIO = 0.6
CALIBRATION = "synthetic:16"


def timed(
    model: str, rounds: int, warmup: int, threads: int
) -> tuple[Sequence[LatencyRecord], dict[str, Any]]:
    """The latency records of eager, fp32 and int8, and how INT8 was made."""
    from resdeploy.pipeline.evaluate import bench
    from resdeploy.pipeline.produce import export
    from resdeploy.pipeline.quantize import quantize

    with tempfile.TemporaryDirectory(prefix="resdeploy-latency-") as name:
        folder = Path(name)
        floats = export(model, output=folder / "fp32.onnx")
        made = quantize(str(floats.path), data=CALIBRATION, output=folder / "int8.onnx")
        manifest = made.artifact.manifest
        facts = None if manifest is None else manifest.quantization
        records = bench(
            [floats.path, made.artifact.path],
            batches=(1,),
            rounds=rounds,
            warmup=warmup,
            threads=threads,
        )
    how = {} if facts is None else facts.model_dump(mode="json", exclude={"calibration"})
    return records, how


def channel(record: LatencyRecord) -> dict[str, Any]:
    """What a results file keeps of one runner."""
    return record.model_dump(mode="json", exclude={"name", "path", "batch", "threads"})


def measure(model: str, rounds: int, warmup: int, threads: int) -> Findings:
    """One run of the three, and the two ratios."""
    records, how = timed(model, rounds, warmup, threads)
    p50 = {record.name: record.p50_ms for record in records}
    return Findings(
        settings={
            "model": model,
            "batch": 1,
            "threads": threads,
            "rounds": rounds,
            "warmup": warmup,
            "calibration": CALIBRATION,
        },
        figures={
            "p50_ms": p50,
            "quantization": how,
            "channels": {record.name: channel(record) for record in records},
        },
        targets=(
            at_most("ort INT8 / ort FP32, p50", RATIO, p50["int8"] / p50["fp32"]),
            at_most("ort FP32 / eager, p50", RATIO, p50["fp32"] / p50["eager"]),
        ),
    )


def print_channels(findings: Findings) -> Findings:
    """Show the milliseconds above the targets."""
    for name, row in findings.figures["channels"].items():
        print(
            f"{name:6} p50 {row['p50_ms']:7.1f} ms  p90 {row['p90_ms']:7.1f}  "
            f"p99 {row['p99_ms']:7.1f}  spread {row['spread']:.1%}  {row['note']}".rstrip()
        )
    return findings


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="resnet50", help="[default: resnet50]")
    parser.add_argument("--rounds", type=int, default=50, help="[default: 50]")
    parser.add_argument("--warmup", type=int, default=5, help="[default: 5]")
    parser.add_argument("--threads", type=int, default=2, help="[default: 2]")
    given = parser.parse_args()
    claim = "resnet50, batch 1: ort INT8 <= 0.6 of ort FP32, ort FP32 <= 0.6 of eager"
    return conclude(
        "latency",
        claim,
        given.results,
        lambda: print_channels(measure(given.model, given.rounds, given.warmup, given.threads)),
    )


if __name__ == "__main__":
    sys.exit(main())
