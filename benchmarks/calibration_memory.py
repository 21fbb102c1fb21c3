"""Calibrating resnet50 needs under 1.5 GB for 64 images and for 2,000, and 1.5 passes of time.

    python benchmarks/calibration_memory.py [--peer]

Claim: calibrating resnet50 at 224×224 takes, with every method, at most 1.5 times what it takes to
run the same images through the same file in ONNX Runtime, and peaks under 1.5 GB with 64 images
and with 2,000, the latter within 5 % of the former. So does the whole of `resdeploy quantize`.
ONNX Runtime's own entropy calibrator needed 7.5 GB for 64.

Method: seeded pictures with the spectrum of photographs are written as JPEG files of several
sizes, so that decoding, resizing and cropping are part of it; the 64 are the first of the
2,000. Each command is a whole process, taken in turn, `--repeats` times: `calibrate, METHOD`
(`our_calibrate.py`: the pass, and the range of every tensor), `plain` (`plain_pass.py`: the same
images, decoded and preprocessed alike, one by one through the float file), and `resdeploy
quantize` of the file and of the model. With --peer ONNX Runtime's `quantize_static` (entropy) runs
on the same 64 images and the same exported graph in a process of its own (`peer_entropy.py`).

How to read it: memory of a command is the larger of its own VmHWM and of what was seen of it
and its children together (`common.Child`); GB are 10^9 bytes. The limit is held against the
largest over the repeats. Seconds of `plain` and `calibrate` are from opening the file to the last
range, without imports; those of `quantize` are of whole processes. Ratios are of medians;
`image_to_plain` is that of what each further image takes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    HERE,
    Child,
    Findings,
    Target,
    at_most,
    below,
    conclude,
    measured_child,
    measured_resdeploy,
    median,
    parser_of,
    require_done,
)

LIMIT_GB = 1.5
WITHIN = 0.05
TIMES_PLAIN = 1.5
FEW, MANY = "few", "many"
PLAIN, FILE, MODEL = "plain", "quantize, file", "quantize, model"
SIZES = ((500, 375), (375, 500), (640, 480), (500, 333), (320, 240))
SEED = 7


def write_pictures(folder: Path, count: int) -> None:
    """JPEG files whose detail falls off with frequency as in photographs, in colour."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(SEED)
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        picture = np.full((height, width, 3), 128, np.float32)
        for octave in range(1, 8):
            edge = 2**octave
            coarse = generator.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
            fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            picture += (np.asarray(fine, np.float32) - 127.5) * (1.2 / octave)
        pixels = np.clip(picture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.jpg", quality=90)


def first_of(source: Path, folder: Path, count: int) -> None:
    """Copy the first files."""
    folder.mkdir()
    for path in sorted(source.iterdir())[:count]:
        shutil.copy(path, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command that has ended, and the seconds that count."""

    child: Child
    seconds: float


def quantized(source: str, images: Path) -> Run:
    """One whole `resdeploy quantize` of a model or of an ONNX file."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-quantize-") as out:
        words = ("quantize", source, "--data", str(images), "-o", f"{out}/int8.onnx", "--quiet")
        child = require_done(measured_resdeploy(*words))
    return Run(child=child, seconds=child.seconds)


def passed(script: str, floats: Path, images: Path, *words: str) -> Run:
    """One pass over the images, by a script that prints its seconds."""
    child = require_done(measured_child(HERE / script, str(floats), str(images), *words))
    return Run(child=child, seconds=json.loads(child.stdout)["seconds"])


def commands_of(model: str, floats: Path) -> dict[str, Callable[[Path], Run]]:
    """What is measured, by name: a function of the folder of images."""
    from resdeploy.quantization import METHODS

    commands: dict[str, Callable[[Path], Run]] = {PLAIN: partial(passed, "plain_pass.py", floats)}
    for method in METHODS.names:
        commands[f"calibrate, {method}"] = partial(calibrated, floats, method)
    commands[FILE] = partial(quantized, str(floats))
    commands[MODEL] = partial(quantized, model)
    return commands


def calibrated(floats: Path, method: str, images: Path) -> Run:
    """Calibration alone."""
    return passed("our_calibrate.py", floats, images, method)


Runs = dict[str, dict[str, list[Run]]]  # by command, then by few or many


def in_turn(commands: dict[str, Callable[[Path], Run]], folder: Path, repeats: int) -> Runs:
    """Every command with `folder/few` and `folder/many`, the order turned round each time."""
    cases = [(name, which) for name in commands for which in (FEW, MANY)]
    runs: Runs = {name: {FEW: [], MANY: []} for name in commands}
    for index in range(repeats):
        for name, which in cases if index % 2 == 0 else reversed(cases):
            runs[name][which].append(commands[name](folder / which))
    return runs


def peer(floats: Path, images: Path, folder: Path) -> dict[str, Any]:
    """ONNX Runtime's entropy calibration; killed for memory is a finding, not a failure."""
    words = (str(floats), str(images), str(folder / "peer-int8.onnx"))
    child = measured_child(HERE / "peer_entropy.py", *words)
    return {**child.figures(), "last_words": child.stderr.strip().splitlines()[-1:]}


def summary_of(runs: Runs, few: int, many: int) -> dict[str, Any]:
    """Memory and time of each command, and how they compare."""
    found: dict[str, Any] = {}
    plain = {which: seconds_of(runs[PLAIN][which]) for which in (FEW, MANY)}
    for name, by_count in runs.items():
        peaks = {which: [run.child.most_bytes for run in by_count[which]] for which in by_count}
        took = {which: seconds_of(by_count[which]) for which in by_count}
        found[name] = {
            "largest_bytes": {which: max(values) for which, values in peaks.items()},
            "median_bytes": {which: median(values) for which, values in peaks.items()},
            "median_s": took,
            "growth": median(peaks[MANY]) / median(peaks[FEW]) - 1,
            "to_plain": {which: took[which] / plain[which] for which in took},
            "image_to_plain": (took[MANY] - took[FEW]) / (plain[MANY] - plain[FEW]),
            "s_per_image": (took[MANY] - took[FEW]) / (many - few),
        }
    return found


def figures_of(run: Run) -> dict[str, Any]:
    """What a results file keeps of a run."""
    return {**run.child.figures(), "seconds_that_count": run.seconds}


def seconds_of(runs: Sequence[Run]) -> float:
    """The median time of a command."""
    return median([run.seconds for run in runs])


def targets_of(summary: dict[str, Any], few: int, many: int) -> list[Target]:
    """What is asked of every command of ours."""
    targets = []
    for name, row in summary.items():
        if name == PLAIN:
            continue
        for which, count in ((FEW, few), (MANY, many)):
            peak = row["largest_bytes"][which] / 1e9
            targets.append(below(f"peak, {count} images, {name}", LIMIT_GB, peak, "GB"))
        growth = abs(row["growth"])
        targets.append(at_most(f"|peak, {many} / {few} images - 1|, {name}", WITHIN, growth))
        for which, count in ((FEW, few), (MANY, many)) if name.startswith("calibrate") else ():
            times = row["to_plain"][which]
            targets.append(
                at_most(f"time / plain pass, {count} images, {name}", TIMES_PLAIN, times)
            )
    return targets


def measure(model: str, few: int, many: int, repeats: int, *, with_peer: bool) -> Findings:
    """All commands in turn, and the peer where it is asked for."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-memory-") as name:
        folder = Path(name)
        write_pictures(folder / MANY, many)
        first_of(folder / MANY, folder / FEW, few)
        floats = folder / f"{model}.onnx"
        require_done(measured_resdeploy("export", model, "-o", str(floats), "--quiet"))
        runs = in_turn(commands_of(model, floats), folder, repeats)
        theirs = peer(floats, folder / FEW, folder) if with_peer else None
    summary = summary_of(runs, few, many)
    return Findings(
        settings={
            "model": model,
            "few": few,
            "many": many,
            "repeats": repeats,
            "picture_sizes": SIZES,
            "seed": SEED,
        },
        figures={
            "summary": summary,
            "runs": {
                name: {which: [figures_of(run) for run in done] for which, done in by_count.items()}
                for name, by_count in runs.items()
            },
            "peer_entropy": theirs,
        },
        targets=tuple(targets_of(summary, few, many)),
    )


def print_memory(findings: Findings) -> Findings:
    """Show what was measured above the targets."""
    for name, row in findings.figures["summary"].items():
        for which in (FEW, MANY):
            size, seconds = row["median_bytes"][which] / 1e9, row["median_s"][which]
            count, times = findings.settings[which], row["to_plain"][which]
            print(
                f"{name}, {count} images: {size:.2f} GB, {seconds:.1f} s, {times:.2f} plain passes"
            )
    theirs = findings.figures["peer_entropy"]
    if theirs is not None:
        size = max(theirs["peak_bytes"] or 0, theirs["tree_peak_bytes"]) / 1e9
        print(
            f"quantize_static, entropy, {findings.settings['few']} images: {size:.2f} GB, "
            f"{theirs['seconds']:.0f} s, exit code {theirs['code']}"
        )
    return findings


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="resnet50", help="[default: resnet50]")
    parser.add_argument("--few", type=int, default=64, help="images [default: 64]")
    parser.add_argument("--many", type=int, default=2000, help="images [default: 2000]")
    parser.add_argument("--repeats", type=int, default=1, help="of each [default: 1]")
    parser.add_argument("--peer", action="store_true", help="also ONNX Runtime's (needs 8 GB)")
    given = parser.parse_args()
    claim = "calibrating resnet50 needs under 1.5 GB for 64 and 2,000 images, and 1.5 plain passes"
    return conclude(
        "calibration_memory",
        claim,
        given.results,
        lambda: print_memory(
            measure(given.model, given.few, given.many, given.repeats, with_peer=given.peer)
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
