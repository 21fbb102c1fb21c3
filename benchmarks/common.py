"""Commands and claims enter; how long and how large they were, and a results file, leave.

What the benchmarks share. Nothing heavy is imported here: `--help` of a benchmark and a
child that is timed should cost what they cost, not what torch costs.

Peak memory of a process is VmHWM of its own /proc/self/status, written by the process when it
ends (`with_peak.py`). ru_maxrss would mislead: a child starts with its parent's figure.
Its children, such as the simplifier, are watched from outside as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"

EXIT_HOLDS, EXIT_BROKEN, EXIT_CANNOT_RUN = 0, 1, 2

# How often the tree of a process is looked at: often enough for a peak that lasts a few
# tenths of a second, seldom enough to cost less than one percent of a core.
WATCH_S = 0.1


class CannotRunError(Exception):
    """What the benchmark needs is not there; the message says what and where from."""


# --- targets ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing the issue asks for; `measured` is as it was measured, null where it has none."""

    target: str
    asked: str
    measured: float | int | str | None
    unit: str
    holds: bool


def at_most(target: str, limit: float, measured: float, unit: str = "") -> Target:
    """`measured` is not above the limit; NaN is."""
    return Target(
        target=target,
        asked=f"<= {limit:g}",
        measured=_finite(measured),
        unit=unit,
        holds=measured <= limit,
    )


def below(target: str, limit: float, measured: float, unit: str = "") -> Target:
    """`measured` is under the limit; NaN is not."""
    return Target(
        target=target,
        asked=f"< {limit:g}",
        measured=_finite(measured),
        unit=unit,
        holds=measured < limit,
    )


def at_least(target: str, limit: float, measured: float, unit: str = "") -> Target:
    """`measured` is not under the limit; NaN is."""
    return Target(
        target=target,
        asked=f">= {limit:g}",
        measured=_finite(measured),
        unit=unit,
        holds=measured >= limit,
    )


def exactly(target: str, wanted: int | str, measured: int | str | None, unit: str = "") -> Target:
    """`measured` is what is wanted."""
    return Target(
        target=target,
        asked=f"= {wanted}",
        measured=measured,
        unit=unit,
        holds=measured == wanted,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- child processes --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process that has ended.

    peak_bytes: its own VmHWM; null where it was killed before it could say.
    tree_peak_bytes: the largest sum of the resident memory of it and its children, as seen
        every WATCH_S; pages they share count for each, so this errs upwards.
    """

    command: tuple[str, ...]
    code: int
    seconds: float
    peak_bytes: int | None
    tree_peak_bytes: int
    stdout: str
    stderr: str

    @property
    def most_bytes(self) -> int:
        """The larger of the two peaks: what the whole command needed."""
        return max(self.peak_bytes or 0, self.tree_peak_bytes)

    def figures(self) -> dict[str, Any]:
        """What a results file keeps of it."""
        return {
            "command": " ".join(self.command),
            "code": self.code,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "tree_peak_bytes": self.tree_peak_bytes,
        }


def resdeploy_script() -> Path:
    """The console script beside this Python."""
    script = Path(sys.executable).with_name("resdeploy")
    if not script.is_file():
        raise CannotRunError(f"{script} is not there; install the package: pip install -e '.[cpu]'")
    return script


def measured_resdeploy(*words: str, cwd: Path | None = None, **env: str) -> Child:
    """Run `resdeploy WORDS` as a whole process; env adds to the environment."""
    child = measured_child(resdeploy_script(), *words, cwd=cwd, **env)
    return Child(**{**asdict(child), "command": ("resdeploy", *words)})


def measured_child(
    script: Path, *words: str, cwd: Path | None = None, python: str = sys.executable, **env: str
) -> Child:
    """Run a Python script as a process of its own, with its time and peak memory."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-bench-") as folder:
        report, out, err = (Path(folder) / name for name in ("peak", "stdout", "stderr"))
        wrapped = [python, str(HERE / "with_peak.py"), str(report), str(script), *words]
        with out.open("w") as stdout, err.open("w") as stderr:
            start = time.perf_counter()
            process = subprocess.Popen(
                wrapped, cwd=cwd, env={**os.environ, **env}, stdout=stdout, stderr=stderr
            )
            with _TreeWatch(process.pid) as watch:
                code = process.wait()
            seconds = time.perf_counter() - start
        return Child(
            command=(script.name, *words),
            code=code,
            seconds=seconds,
            peak_bytes=int(report.read_text()) if report.is_file() else None,
            tree_peak_bytes=watch.peak_bytes,
            stdout=out.read_text(),
            stderr=err.read_text(),
        )


class _TreeWatch:
    """Looks at the resident memory of a process and its children until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _TreeWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(WATCH_S):
            self.peak_bytes = max(self.peak_bytes, _tree_bytes(self.pid))


def _tree_bytes(pid: int) -> int:
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # this one has just ended
            continue
    return total


def timed_resdeploy(*words: str) -> float:
    """Seconds that `resdeploy WORDS` takes, with nothing around it."""
    start = time.perf_counter()
    subprocess.run([resdeploy_script(), *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def require_done(child: Child) -> Child:
    """The child, if it did its work."""
    if child.code != 0:
        last = "\n".join(child.stderr.strip().splitlines()[-8:])
        raise CannotRunError(f"`{' '.join(child.command)}` ended with {child.code}:\n{last}")
    return child


# --- results ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a benchmark found out: raw figures, and what became of each target."""

    settings: dict[str, Any]
    figures: dict[str, Any]
    targets: tuple[Target, ...]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(statistics.median(values))


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, with the options every benchmark has."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="where NAME.json goes"
    )
    return parser


def conclude(name: str, claim: str, folder: Path, measure: Callable[[], Findings]) -> int:
    """Measure, write `folder/name.json`, print the table, and say with the exit code if it holds.

    0: every target holds. 1: one does not. 2: it could not be measured; nothing is written.
    """
    from resdeploy.errors import ResdeployError
    from resdeploy.measure.machine import machine_facts

    try:
        found = measure()
    except (CannotRunError, ResdeployError) as error:
        hint = getattr(error, "hint", "")
        print(f"{name} cannot run: {error}{f' (hint: {hint})' if hint else ''}", file=sys.stderr)
        return EXIT_CANNOT_RUN
    holds = bool(found.targets) and all(target.holds for target in found.targets)
    document = {
        "kind": "benchmark",
        "schema": 1,
        "name": name,
        "claim": claim,
        "holds": holds,
        "machine": machine_facts().model_dump(mode="json"),
        "settings": found.settings,
        "targets": [asdict(target) for target in found.targets],
        "figures": found.figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _print_targets(found.targets)
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {path}")
    return EXIT_HOLDS if holds else EXIT_BROKEN


def _print_targets(targets: Sequence[Target]) -> None:
    rows = [("target", "asked", "measured", "holds")]
    for target in targets:
        value = target.measured
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows.append(
            (
                target.target,
                f"{target.asked} {target.unit}".rstrip(),
                f"{shown} {target.unit}".rstrip(),
                "yes" if target.holds else "NO",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
