"""Quantizing resnet50 needs under 2 GB, and no more for 256 images than for 64.

    python benchmarks/calibration_memory.py [--peer]

Claim: `resdeploy quantize resnet50 --data ...` at 224×224 with 256
images peaks under 2 GB, within 5 % of the peak with 64 images. ONNX Runtime's own entropy
calibrator needed 7.5 GB for 64.

Method: seeded pictures with the spectrum of photographs are written as JPEG files of several
sizes, so that decoding, resizing and cropping are part of it; the 64 are the first of the
256. Each command is a whole process, taken in turn, `--repeats` times. Export and simplifier
alone need so much that they could hide a calibration that grows; so the same is done once
more from an exported file (`from_onnx`), where calibration is what there is. With --peer ONNX
Runtime's `quantize_static` (entropy) runs on the same 64 images and the same exported graph
in a process of its own (`peer_entropy.py`).

How to read it: memory of a command is the larger of its own VmHWM and of what was seen of it
and its children together (`common.Child`); GB are 10^9 bytes. Medians over the repeats are
compared, but the limit is held against the largest.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    HERE,
    Child,
    Findings,
    at_most,
    below,
    conclude,
    measured_child,
    measured_resdeploy,
    median,
    parser_of,
    require_done,
)

LIMIT_GB = 2.0
WITHIN = 0.05
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


def quantized(source: str, images: Path) -> Child:
    """One whole `resdeploy quantize` of a model or of an ONNX file."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-quantize-") as out:
        words = ("quantize", source, "--data", str(images), "-o", f"{out}/int8.onnx", "--quiet")
        return require_done(measured_resdeploy(*words))


def in_turn(sources: dict[str, str], folder: Path, repeats: int) -> dict[str, list[Child]]:
    """Every source with `folder/few` and `folder/many`, the order turned round each time."""
    cases = [(start, which) for start in sources for which in ("few", "many")]
    children: dict[str, list[Child]] = {f"{start}_{which}": [] for start, which in cases}
    for index in range(repeats):
        for start, which in cases if index % 2 == 0 else reversed(cases):
            children[f"{start}_{which}"].append(quantized(sources[start], folder / which))
    return children


def peer(floats: Path, images: Path, folder: Path) -> dict[str, Any]:
    """ONNX Runtime's entropy calibration; killed for memory is a finding, not a failure."""
    words = (str(floats), str(images), str(folder / "peer-int8.onnx"))
    child = measured_child(HERE / "peer_entropy.py", *words)
    return {**child.figures(), "last_words": child.stderr.strip().splitlines()[-1:]}


def growth_of(peaks: dict[str, list[int]], start: str) -> float:
    """How much larger the median peak is with many images than with few."""
    return median(peaks[f"{start}_many"]) / median(peaks[f"{start}_few"]) - 1


def measure(model: str, few: int, many: int, repeats: int, *, with_peer: bool) -> Findings:
    """All commands in turn, and the peer where it is asked for."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-memory-") as name:
        folder = Path(name)
        write_pictures(folder / "many", many)
        first_of(folder / "many", folder / "few", few)
        floats = folder / f"{model}.onnx"
        require_done(measured_resdeploy("export", model, "-o", str(floats), "--quiet"))
        sources = {"from_model": model, "from_onnx": str(floats)}
        children = in_turn(sources, folder, repeats)
        theirs = peer(floats, folder / "few", folder) if with_peer else None
    peaks = {case: [child.most_bytes for child in runs] for case, runs in children.items()}
    growth = {start: growth_of(peaks, start) for start in sources}
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
            "median_bytes": {case: median(values) for case, values in peaks.items()},
            "median_s": {case: median([run.seconds for run in children[case]]) for case in peaks},
            "growth": growth,
            "runs": {case: [run.figures() for run in runs] for case, runs in children.items()},
            "peer_entropy": theirs,
        },
        targets=(
            below(
                f"peak, {many} images, largest", LIMIT_GB, max(peaks["from_model_many"]) / 1e9, "GB"
            ),
            *(
                at_most(f"|peak, {many} / {few} images - 1|, {start}", WITHIN, abs(value))
                for start, value in growth.items()
            ),
        ),
    )


def print_memory(findings: Findings) -> Findings:
    """Show what was measured above the targets."""
    for case, size in findings.figures["median_bytes"].items():
        count = findings.settings[case.rpartition("_")[2]]
        seconds = findings.figures["median_s"][case]
        print(f"{case}, {count} images: {size / 1e9:.2f} GB, {seconds:.0f} s")
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
    parser.add_argument("--many", type=int, default=256, help="images [default: 256]")
    parser.add_argument("--repeats", type=int, default=3, help="of each [default: 3]")
    parser.add_argument("--peer", action="store_true", help="also ONNX Runtime's (needs 8 GB)")
    given = parser.parse_args()
    claim = "quantizing resnet50 needs under 2 GB, within 5 % the same for 64 and 256 images"
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
