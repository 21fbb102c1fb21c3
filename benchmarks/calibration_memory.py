"""Quantizing resnet50 needs under 2 GB, and no more for 256 images than for 64.

    python benchmarks/calibration_memory.py [--peer]

Claim (issue 2, Must show 7): `resdeploy quantize resnet50 --data ...` at 224×224 with 256
images peaks under 2 GB, within 5 % of the peak with 64 images. ONNX Runtime's own entropy
calibrator needed 7.5 GB for 64.

Method: seeded pictures with the spectrum of photographs are written as JPEG files of several
sizes, so that decoding, resizing and cropping are part of it; the 64 are the first of the
256. Each command is a whole process, the two in turn, `--repeats` times. With --peer ONNX
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


def quantized(model: str, images: Path) -> Child:
    """One whole `resdeploy quantize`."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-quantize-") as out:
        words = ("quantize", model, "--data", str(images), "-o", f"{out}/int8.onnx", "--quiet")
        return require_done(measured_resdeploy(*words))


def peer(model: str, images: Path, folder: Path) -> dict[str, Any]:
    """ONNX Runtime's entropy calibration; killed for memory is a finding, not a failure."""
    floats = folder / "peer.onnx"
    require_done(measured_resdeploy("export", model, "-o", str(floats), "--quiet"))
    words = (str(floats), str(images), str(folder / "peer-int8.onnx"))
    child = measured_child(HERE / "peer_entropy.py", *words)
    return {**child.figures(), "last_words": child.stderr.strip().splitlines()[-1:]}


def measure(model: str, few: int, many: int, repeats: int, *, with_peer: bool) -> Findings:
    """Both commands in turn, and the peer where it is asked for."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-memory-") as name:
        folder = Path(name)
        write_pictures(folder / "many", many)
        first_of(folder / "many", folder / "few", few)
        children: dict[str, list[Child]] = {"few": [], "many": []}
        for index in range(repeats):
            for which in ("few", "many") if index % 2 == 0 else ("many", "few"):
                children[which].append(quantized(model, folder / which))
        theirs = peer(model, folder / "few", folder) if with_peer else None
    peaks = {which: [child.most_bytes for child in runs] for which, runs in children.items()}
    growth = median(peaks["many"]) / median(peaks["few"]) - 1
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
            "median_bytes": {which: median(values) for which, values in peaks.items()},
            "median_s": {
                which: median([child.seconds for child in runs]) for which, runs in children.items()
            },
            "growth": growth,
            "runs": {
                which: [child.figures() for child in runs] for which, runs in children.items()
            },
            "peer_entropy": theirs,
        },
        targets=(
            below(f"peak with {many} images, largest", LIMIT_GB, max(peaks["many"]) / 1e9, "GB"),
            at_most(f"|peak with {many} / peak with {few} - 1|", WITHIN, abs(growth)),
        ),
    )


def print_memory(findings: Findings) -> Findings:
    """Show what was measured above the targets."""
    for which, count in (("few", "few"), ("many", "many")):
        size = findings.figures["median_bytes"][which] / 1e9
        seconds = findings.figures["median_s"][which]
        print(f"resdeploy, {findings.settings[count]} images: {size:.2f} GB, {seconds:.0f} s")
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
