"""Calibrating resnet50 needs under 1.5 GB for 64 images and for 2,000, and 1.5 passes of time.

    python benchmarks/calibration_memory.py [--peer]

Claim: calibrating resnet50 at 224×224 takes, with every method, at most 1.5 times what it takes to
run the same images through the same file in ONNX Runtime, and peaks under 1.5 GB with 64 images
and with 2,000, the latter within 5 % of the former. So does the whole of `resdeploy quantize`.
ONNX Runtime's own entropy calibrator needed 7.5 GB for 64.

Method: seeded pictures with the spectrum of photographs are written as JPEG files of several
sizes, so that decoding, resizing and cropping are part of it; the 64 are the first of the
2,000. Each command is a whole process, and runs `--few-repeats` times with the few images,
`--many-repeats` times with the many: `calibrate, METHOD` (`our_calibrate.py`: the pass, and the
range of every tensor), `plain` (`plain_pass.py`: the same images, decoded and preprocessed alike,
one by one through the float file), and `resdeploy quantize` of the file and of the model. `plain`
runs before and after every `calibrate` and is compared with the mean of the two, since the machine
changes its speed by some 10 % within the time that all of it takes. With --peer ONNX
Runtime's `quantize_static` (entropy) runs on the same 64 images and the same exported graph in a
process of its own (`peer_entropy.py`).

How to read it: memory of a command is the larger of its own VmHWM and of what was seen of it
and its children together (`common.Child`); GB are 10^9 bytes. The limit is held against the
largest over the repeats. Seconds of `plain` and `calibrate` are from opening the file to the last
range, without imports; those of `quantize` are of whole processes. `to_plain` is the median of the
ratios; `image_to_plain` is the ratio of what each further image takes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    to_plain: float | None = None  # how often a plain pass fits in, of those before and after it

    def between(self, before: Run, after: Run) -> Run:
        """The same, compared with the plain passes on both sides."""
        return replace(self, to_plain=2 * self.seconds / (before.seconds + after.seconds))


Command = Callable[[Path], Run]  # of the folder of images


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


def calibrated(floats: Path, method: str, images: Path) -> Run:
    """Calibration alone."""
    return passed("our_calibrate.py", floats, images, method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What is measured: `passes`, by name, are held against `plain`; `wholes` are not."""

    plain: Command
    passes: dict[str, Command]
    wholes: dict[str, Command]

    @classmethod
    def of(cls, model: str, floats: Path) -> Commands:
        """Of a model, and of the ONNX file that was exported of it."""
        from resdeploy.quantization import METHODS

        return cls(
            plain=partial(passed, "plain_pass.py", floats),
            passes={
                f"calibrate, {method}": partial(calibrated, floats, method)
                for method in METHODS.names
            },
            wholes={FILE: partial(quantized, str(floats)), MODEL: partial(quantized, model)},
        )

    def round(self, images: Path, *, turned: bool) -> Iterator[tuple[str, Run]]:
        """Every command once, with plain passes between those that are held against it."""
        before = self.plain(images)
        yield PLAIN, before
        for name in reversed(self.passes) if turned else self.passes:
            run, after = self.passes[name](images), self.plain(images)
            yield name, run.between(before, after)
            yield PLAIN, after
            before = after
        for name, command in self.wholes.items():
            yield name, command(images)


Runs = dict[str, dict[str, list[Run]]]  # by command, then by few or many


def in_turn(commands: Commands, folder: Path, repeats: dict[str, int]) -> Runs:
    """Every command with `folder/few` and `folder/many`, the order turned round each time."""
    names = (PLAIN, *commands.passes, *commands.wholes)
    runs: Runs = {name: {which: [] for which in repeats} for name in names}
    for which, count in repeats.items():
        for index in range(count):
            for name, run in commands.round(folder / which, turned=index % 2 == 1):
                runs[name][which].append(run)
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
            "to_plain": {which: to_plain_of(by_count[which]) for which in took},
            "image_to_plain": (took[MANY] - took[FEW]) / (plain[MANY] - plain[FEW]),
            "s_per_image": (took[MANY] - took[FEW]) / (many - few),
        }
    return found


def figures_of(run: Run) -> dict[str, Any]:
    """What a results file keeps of a run."""
    return {**run.child.figures(), "seconds_that_count": run.seconds, "to_plain": run.to_plain}


def seconds_of(runs: Sequence[Run]) -> float:
    """The median time of a command."""
    return median([run.seconds for run in runs])


def to_plain_of(runs: Sequence[Run]) -> float | None:
    """How often a plain pass fits into a command, of those that are held against it."""
    ratios = [run.to_plain for run in runs if run.to_plain is not None]
    return median(ratios) if ratios else None


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


def measure(
    model: str, few: int, many: int, repeats: dict[str, int], *, with_peer: bool
) -> Findings:
    """All commands in turn, and the peer where it is asked for."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-memory-") as name:
        folder = Path(name)
        write_pictures(folder / MANY, many)
        first_of(folder / MANY, folder / FEW, few)
        floats = folder / f"{model}.onnx"
        require_done(measured_resdeploy("export", model, "-o", str(floats), "--quiet"))
        runs = in_turn(Commands.of(model, floats), folder, repeats)
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
            passes = "" if times is None else f", {times:.2f} plain passes"
            print(f"{name}, {count} images: {size:.2f} GB, {seconds:.1f} s{passes}")
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
    parser.add_argument("--few-repeats", type=int, default=5, help="[default: 5]")
    parser.add_argument("--many-repeats", type=int, default=1, help="[default: 1]")
    parser.add_argument("--peer", action="store_true", help="also ONNX Runtime's (needs 8 GB)")
    given = parser.parse_args()
    repeats = {FEW: given.few_repeats, MANY: given.many_repeats}
    claim = "calibrating resnet50 needs under 1.5 GB for 64 and 2,000 images, and 1.5 plain passes"
    return conclude(
        "calibration_memory",
        claim,
        given.results,
        lambda: print_memory(
            measure(given.model, given.few, given.many, repeats, with_peer=given.peer)
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
