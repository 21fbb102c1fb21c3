"""What we measure is what others measure, and measuring costs next to nothing.

    python benchmarks/measure_overhead.py

Claims: the median that `bench` gives for a file in ONNX Runtime is within 5 % of that of a loop
that knows nothing of resdeploy, and in OpenVINO within 5 % of `benchmark_app`'s; timing an
inference of 5 ms adds at most 1 % to it; `check` on 2,000 images takes at most 1.3 times the two
forward passes.

Method: resnet18 at 224 pixels for the first two, in turn with ours, the median of all repeats; the
loop and `benchmark_app` run the same file alone, with the same number of threads. The 5 ms are
spent by a runner that waits for the clock. `check` compares a CIFAR-10 resnet56 (real images, of
`RESDEPLOY_DATA`) in ONNX Runtime with eager; the passes alone run on the same images, decoded
before, in batches of the same size.

How to read it: ratios near 1 hold on any machine; on one whose clock or neighbours change between
two runs they scatter, and `ratios` shows by how much.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ROOT, CannotRunError, Findings, at_most, conclude, parser_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL, SIZE, THREADS = "resnet18", 224, 2
APART, OVERHEAD, CHECK = 1.05, 1.01, 1.3

LOOP = """
import sys, time, statistics
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = {session.get_inputs()[0].name: np.random.randn(1, 3, 224, 224).astype(np.float32)}
for _ in range(20):
    session.run(None, images)
times = []
for _ in range(100):
    start = time.perf_counter()
    session.run(None, images)
    times.append(time.perf_counter() - start)
print(statistics.median(times) * 1000)
"""


def loop_ms(path: Path) -> float:
    """The median of a loop of its own, in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-c", LOOP, str(path), str(THREADS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(said.stdout)


def app_ms(path: Path) -> float:
    """The median that OpenVINO's benchmark_app prints."""
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if program is None:
        raise CannotRunError("benchmark_app is not installed: pip install openvino")
    words = ["-m", str(path), "-d", "CPU", "-api", "sync", "-niter", "100", "-hint", "none"]
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

    records = bench([path], runtime=runtime, threads=THREADS, rounds=100)
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


def measure(repeats: int) -> Findings:
    """All of it."""
    from resdeploy import export

    with tempfile.TemporaryDirectory(prefix="resdeploy-overhead-") as name:
        folder = Path(name)
        path = export(MODEL, output=folder / "x.onnx").path
        pairs: dict[str, list[tuple[float, float]]] = {"ort": [], "openvino": []}
        for _ in range(repeats):
            pairs["ort"].append((ours_ms(path, "ort"), loop_ms(path)))
            pairs["openvino"].append((ours_ms(path, "openvino"), app_ms(path)))
        spent = spent_ms()
        checks = [check_seconds(folder) for _ in range(2)]
    ratios = {name: [ours / theirs for ours, theirs in rows] for name, rows in pairs.items()}
    middle = {name: statistics.median(rows) for name, rows in ratios.items()}
    apart = {name: max(ratio, 1 / ratio) for name, ratio in middle.items()}
    check_ratio = min(whole / passes for whole, passes in checks)
    return Findings(
        settings={"model": MODEL, "size": SIZE, "threads": THREADS, "repeats": repeats},
        figures={"ms": pairs, "ratios": ratios, "waiting_ms": spent, "check_s": checks},
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
    parser.add_argument("--repeats", type=int, default=5, help="[default: 5]")
    given = parser.parse_args()
    claim = "bench agrees with others within 5 %, adds 1 %; check <= 1.3 forward passes"
    return conclude("measure_overhead", claim, given.results, lambda: measure(given.repeats))


if __name__ == "__main__":
    sys.exit(main())
