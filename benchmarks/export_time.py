"""Exporting resnet50 takes three quarters of what `optimum-cli export onnx` takes, and less memory.

    python benchmarks/export_time.py --peer-python /path/to/peer/bin/python

Claim: `resdeploy export resnet50 --format onnx` takes at most 0.75 of the time of the peer on the
same network, and its largest process less memory. Ours tries batches of one, two and three images
of 224 pixels, and three of one value, against PyTorch, and simplifies; the peer tries two images
of 64 pixels, its default.

Method: whole processes in turn, the order turned round each round, each into a fresh folder.
Memory is watched in a first round, which fills the caches and is not timed: watching takes time.
Weights are random: ours draws them in the process, the peer reads transformers' own ResNet-50
from a folder that its Python wrote before. Nothing may ask the network. A run that ends with
another code than 0 or leaves no file is a failure, not timed. `import torch` alone, in our Python,
is the floor. The peer is `pip install optimum-onnx pillow`, with torch, onnx, onnxruntime and
numpy as we pin them.

How to read it: ratios are of medians. `cpu_s` is what the processes computed. `peak_bytes` is
the largest VmHWM of one process, `tree_peak_bytes` the largest sum of the resident memory of
all, seen every 20 ms; pages they share count for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from common import (
    CannotRunError,
    Findings,
    at_most,
    conclude,
    exactly,
    median,
    parser_of,
    resdeploy_script,
)

OURS, PEER, FLOOR = "resdeploy", "optimum", "import_torch"
# Of the peer.
TIME, MEMORY = 0.75, 1.0
WATCH_S = 0.02
FIGURES = ("seconds", "cpu_s", "file_bytes")
# Empty is unset: an installed package has its bytecode, which the first round writes.
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}

# As microsoft/resnet-50 on the hub, but for the values of the weights.
PEER_MODEL = """
import json, platform, sys
from importlib.metadata import version
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification
ResNetForImageClassification(ResNetConfig(num_labels=1000)).save_pretrained(sys.argv[1])
ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(sys.argv[1])
names = "optimum optimum-onnx transformers torch onnx onnxruntime numpy".split()
print(json.dumps({"python": platform.python_version(), **{n: version(n) for n in names}}))
"""


class Watch(threading.Thread):
    """Looks at the memory of a process and its descendants until it is told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.largest = self.tree = 0
        self._stopped = threading.Event()
        self._member = {**dict.fromkeys(psutil.pids(), False), pid: True}

    def run(self) -> None:
        """Look every WATCH_S; what is new counts from the next look, when it has its own memory."""
        while not self._stopped.wait(WATCH_S):
            seen = [status_of(pid) for pid, member in self._member.items() if member]
            self.largest = max(self.largest, *(status.get("VmHWM", 0) for status in seen))
            self.tree = max(self.tree, sum(status.get("VmRSS", 0) for status in seen))
            for pid in sorted(set(psutil.pids()) - self._member.keys()):
                self._member[pid] = self._member.get(status_of(pid).get("PPid", 0), False)

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


def status_of(pid: int) -> dict[str, int]:
    """The parent, and in bytes the memory, of a process; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = {line.split(":")[0]: line.split() for line in lines}
    units = {"PPid": 1, "VmHWM": 1024, "VmRSS": 1024}
    return {key: int(fields[key][1]) * unit for key, unit in units.items() if key in fields}


def words_of(case: str, out: Path, peer: Path | None, model: Path) -> list[str]:
    """The command line of a case."""
    if case == OURS:
        words = ["export", "resnet50", "--format", "onnx", "-o"]
        return [str(resdeploy_script()), *words, str(out / "model.onnx")]
    if case == PEER and peer is not None:
        words = ["export", "onnx", "--task", "image-classification", "--model"]
        return [str(peer.with_name("optimum-cli")), *words, str(model), str(out)]
    return [sys.executable, "-c", "import torch"]


def run_once(case: str, peer: Path | None, model: Path, *, watched: bool) -> dict[str, Any]:
    """One whole process into a fresh folder: its figures, or that it failed and what it said."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-export-") as name:
        out, log = Path(tempfile.mkdtemp(dir=name)), Path(name) / "log"
        words = words_of(case, out, peer, model)
        with log.open("wb") as sink:
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            process = subprocess.Popen(words, cwd=out, stdout=sink, stderr=sink, env=ENVIRONMENT)
            with Watch(process.pid) if watched else contextlib.nullcontext() as watch:
                code = process.wait()
                seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = sum(after[:2]) - sum(before[:2])  # user and system
        size = sum(path.stat().st_size for path in out.glob("*.onnx*") if path.suffix != ".json")
        if code != 0 or (case != FLOOR and size == 0):
            return {"failed": True, "code": code, "last_words": log.read_text()[-600:]}
        figures = {"seconds": seconds, "cpu_s": cpu, "file_bytes": size}
        if watch is not None:
            figures |= {"peak_bytes": watch.largest, "tree_peak_bytes": watch.tree}
        return {"failed": False, "code": code, **figures}


def made_by_peer(peer: Path, folder: Path) -> Any:
    """Have the peer write its model; the versions it did that with."""
    if not (peer.is_file() and peer.with_name("optimum-cli").is_file()):
        raise CannotRunError(f"no Python with optimum-cli beside it: {peer}")
    words = [str(peer), "-c", PEER_MODEL, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"{peer} cannot write a model:\n{done.stderr.strip()[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(first: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians, and the least seconds, of the timed runs; memory of the first."""
    good = [run for run in runs if not run["failed"]]
    if not good or first["failed"]:
        last = first if first["failed"] else runs[-1]
        raise CannotRunError(f"a command failed:\n{last['last_words']}")
    medians = {f"median_{key}": median([run[key] for run in good]) for key in FIGURES}
    memory = {key: first[key] for key in ("peak_bytes", "tree_peak_bytes")}
    return {**medians, **memory, "min_seconds": min(run["seconds"] for run in good)}


def measure(rounds: int, peer: Path | None) -> Findings:
    """All commands in turn, and what they amount to."""
    cases = (FLOOR, OURS) if peer is None else (FLOOR, OURS, PEER)
    runs: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="resdeploy-peer-") as name:
        facts = None if peer is None else made_by_peer(peer, Path(name))
        for index in range(rounds + 1):
            for case in cases if index % 2 == 0 else reversed(cases):
                runs[case].append(run_once(case, peer, Path(name), watched=index == 0))
    first = {case: runs[case].pop(0) for case in cases}
    found = {case: summary(first[case], runs[case]) for case in cases}
    print_summary(found)
    failed = [run for case in cases for run in runs[case] if run["failed"]]
    targets = [exactly("failed runs", 0, len(failed))]
    ratios = {key: found[OURS][key] / value for key, value in found.get(PEER, {}).items()}
    if ratios:
        targets.append(at_most("resdeploy / optimum, time", TIME, ratios["median_seconds"]))
        targets.append(at_most("resdeploy / optimum, memory", MEMORY, ratios["peak_bytes"]))
    return Findings(
        settings={"model": "resnet50", "rounds": rounds, "watch_s": WATCH_S, "peer": facts},
        figures={"summary": found, "ours_to_peer": ratios, "watched_first": first, "runs": runs},
        targets=tuple(targets),
    )


def print_summary(found: dict[str, dict[str, float]]) -> None:
    """Show the figures above the targets."""
    for case, row in found.items():
        took, cpu, size = (row[f"median_{key}"] for key in FIGURES)
        peak, tree = row["peak_bytes"], row["tree_peak_bytes"]
        print(
            f"{case:12} {took:6.2f} s (least {row['min_seconds']:.2f}, cpu {cpu:.2f})  "
            f"peak {peak / 1e9:.2f} GB (tree {tree / 1e9:.2f})  file {size / 1e6:.2f} MB"
        )
    if PEER not in found:
        print("the peer is missing (--peer-python): only ours was measured")


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="[default: 7]")
    parser.add_argument("--peer-python", type=Path, metavar="PATH", help="Python with optimum")
    given = parser.parse_args()
    peer = None if given.peer_python is None else given.peer_python.absolute()
    claim = "exporting resnet50 takes 0.75 of the time of optimum-cli export onnx, and less memory"
    return conclude("export_time", claim, given.results, lambda: measure(given.rounds, peer))


if __name__ == "__main__":
    sys.exit(main())
