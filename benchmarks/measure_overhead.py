"""What we measure is what others measure, and measuring costs next to nothing.

    python benchmarks/measure_overhead.py

Claims: the median that `bench` gives for a file in ONNX Runtime is within 5 % of that of a loop
that knows nothing of resdeploy, and in OpenVINO within 5 % of `benchmark_app`'s; timing an
inference of 5 ms adds at most 1 % to it; `check` on 2,000 images takes at most 1.3 times the two
forward passes.

Method: resnet18 at 224 pixels for the first two, in turn with ours, first one and then the other
going first; the same file, the same number of threads. Each pair of medians has a ratio, and the
median of these counts: what slows the clock for some seconds slows both of a pair. The loop has a
session of its own in this process, since two processes may get a fast and a slow core;
`benchmark_app` is a process. The 5 ms are spent by a runner that waits for the clock. `check`
compares a CIFAR-10 resnet56 (real images, of `RESDEPLOY_DATA`) in ONNX Runtime with eager; the
passes alone run on the same images, decoded before, in batches of the same size.

How to read it: ratios near 1 hold on any machine; on one whose clock or neighbours change between
two runs they scatter, and the pairs in `ms` (ours, theirs) show by how much.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ROOT, CannotRunError, Findings, at_most, conclude, parser_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL, SIZE, THREADS = "resnet18", 224, 2
ROUNDS, WARM = 50, 20
APART, OVERHEAD, CHECK = 1.05, 1.01, 1.3


class PlainLoop:
    """What anybody would write to time a file in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        shape = (1, 3, SIZE, SIZE)
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        self.feeds = {self.session.get_inputs()[0].name: images}

    def median_ms(self) -> float:
        """The median of the inferences after some that do not count."""
        for _ in range(WARM):
            self.session.run(None, self.feeds)
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            self.session.run(None, self.feeds)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1000


def app_ms(path: Path) -> float:
    """The median that OpenVINO's benchmark_app prints."""
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if program is None:
        raise CannotRunError("benchmark_app is not installed: pip install openvino")
    words = ["-m", str(path), "-d", "CPU", "-api", "sync", "-niter", str(ROUNDS), "-hint", "none"]
    words += ["-nthreads", str(THREADS), "-data_shape", "[1,3,224,224]", "-infer_precision", "f32"]
    said = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    found = re.search(r"Median:\s*([0-9.]+) ms", said.stdout)
    if found is None:
        raise CannotRunError(
            f"benchmark_app gave no median: {said.stdout[-300:]}{said.stderr[-300:]}"
        )
    return float(found[1])


def ours_ms(path: Path, runtime: str) -> float:
    """The median that `bench` gives."""
    from resdeploy import bench

    records = bench([path], runtime=runtime, threads=THREADS, rounds=ROUNDS)
    return records[-1].p50_ms


def spent_ms() -> list[float]:
    """What `bench` says of a runner that takes 5 ms by the clock."""
    import numpy as np

    from resdeploy.measure import measure_latency

    class Waiting:
        def __enter__(self) -> Waiting:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def run(self, images: NDArray[Any]) -> NDArray[Any]:
            end = time.perf_counter_ns() + 5_000_000
            while time.perf_counter_ns() < end:
                pass
            return images

    images = [np.full((1, 1), value, np.float32) for value in (0.0, 1.0)]
    found = measure_latency({"x": Waiting()}, {"x": images}, rounds=200, warmup=5)["x"]
    return [ns / 1e6 for ns in found.samples_ns]


def check_seconds(folder: Path) -> tuple[float, float]:
    """`check` on 2,000 images, and the two forward passes alone."""
    from resdeploy import check, export
    from resdeploy.data import source_from_reference
    from resdeploy.models.reference import resolve
    from resdeploy.pipeline.compare import COMPARE_BATCH
    from resdeploy.runtimes import EagerRunner, OrtRunner

    data = Path(os.environ.get("RESDEPLOY_DATA", ROOT.parent / "shared" / "data"))
    weights = sorted((data / "checkpoints").glob("resnet56*"))
    if not weights:
        raise CannotRunError(f"no checkpoint of resnet56 in {data}: set RESDEPLOY_DATA")
    path = export("resnet56", weights=weights[0], output=folder / "resnet56.onnx").path
    images = data / "cifar10" / "evaluation"
    start = time.perf_counter()
    check([path], data=str(images))
    checked = time.perf_counter() - start
    loaded = resolve("resnet56", str(weights[0]))
    source = source_from_reference(str(images))
    batches: list[NDArray[np.float32]] = [
        batch.images for batch in source.batches(loaded.preprocess, COMPARE_BATCH)
    ]
    start = time.perf_counter()
    with (
        EagerRunner(loaded.module, threads=THREADS) as eager,
        OrtRunner(path, threads=THREADS) as ort,
    ):
        for batch in batches:
            eager.run(batch)
            ort.run(batch)
    return checked, time.perf_counter() - start


def in_turn(
    ours: Callable[[], float], theirs: Callable[[], float], repeats: int
) -> list[tuple[float, float]]:
    """So many pairs of either's medians, every other one with theirs first."""
    pairs = []
    for index in range(repeats):
        second = theirs() if index % 2 else None
        first = ours()
        pairs.append((first, theirs() if second is None else second))
    return pairs


def apart_by(pairs: list[tuple[float, float]]) -> float:
    """How many times the one is the other, by the median over the pairs; at least 1."""
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return max(ratio, 1 / ratio)


def measure(repeats: int) -> Findings:
    """All of it."""
    from resdeploy import export

    with tempfile.TemporaryDirectory(prefix="resdeploy-overhead-") as name:
        folder = Path(name)
        path = export(MODEL, output=folder / "x.onnx").path
        loop = PlainLoop(path)
        pairs = {
            "ort": in_turn(lambda: ours_ms(path, "ort"), loop.median_ms, repeats),
            "openvino": in_turn(lambda: ours_ms(path, "openvino"), lambda: app_ms(path), repeats),
        }
        spent = spent_ms()
        checks = [check_seconds(folder) for _ in range(2)]
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in pairs.items()
    }
    apart = {name: apart_by(rows) for name, rows in pairs.items()}
    check_ratio = min(whole / passes for whole, passes in checks)
    return Findings(
        settings={
            "model": MODEL,
            "size": SIZE,
            "threads": THREADS,
            "repeats": repeats,
            "rounds": ROUNDS,
        },
        figures={"ms": pairs, "medians_ms": medians, "waiting_ms": spent, "check_s": checks},
        targets=(
            at_most("ort, ours and a plain loop, apart", APART, apart["ort"]),
            at_most("openvino, ours and benchmark_app, apart", APART, apart["openvino"]),
            at_most("an inference of 5 ms, timed", OVERHEAD * 5, statistics.median(spent), "ms"),
            at_most("check / two forward passes", CHECK, check_ratio),
        ),
    )


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=24, help="[default: 24]")
    given = parser.parse_args()
    claim = "bench agrees with others within 5 %, adds 1 %; check <= 1.3 forward passes"
    return conclude("measure_overhead", claim, given.results, lambda: measure(given.repeats))


if __name__ == "__main__":
    sys.exit(main())
