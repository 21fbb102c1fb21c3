"""Published CIFAR-10 ResNets keep their answers through export, and nearly all through INT8.

    RESDEPLOY_DATA=../shared/data python benchmarks/cifar10_fidelity.py

Claim: for the published checkpoints resnet20-12fca82f.th and
resnet56-4bfd9763.th, eager FP32 is right on 1,627 and 1,663 of the 2,000 evaluation images,
the exported ONNX gives the same predictions, and ort-cpu INT8 calibrated on 520 training
images agrees with FP32 on at least 97.5 % of them.

Method: the product's own API: `export`, `quantize` from the exported file with 7-bit and with
8-bit weights, and one `check` of all three against eager on the same images. Nothing is
random.

How to read it: 7-bit weights are what a CPU without VNNI gets, 8-bit ones the default where
sums of 8-bit products are exact. 8-bit weights on a CPU that saturates are recorded in
`figures` (they show why the product avoids them) but are no target there. `sqnr_db` is of the
logits; `right` counts top-1.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ROOT, CannotRunError, Findings, Target, at_least, conclude, exactly, parser_of

if TYPE_CHECKING:
    from resdeploy.records import DriftFigures, DriftRecord

AGREEMENT = 0.975


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A checkpoint and the top-1 hits PyTorch has with it on the evaluation images."""

    model: str
    file: str
    hits: int


PUBLISHED = (
    Published(model="resnet20", file="resnet20-12fca82f.th", hits=1627),
    Published(model="resnet56", file="resnet56-4bfd9763.th", hits=1663),
)


def require_data(data: Path) -> None:
    """Stop where a checkpoint or a set of images is not there."""
    needed = [data / "cifar10" / part for part in ("calibration", "evaluation")]
    needed += [data / "checkpoints" / row.file for row in PUBLISHED]
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise CannotRunError(
            f"{', '.join(missing)} not found; this benchmark needs the CIFAR-10 images and the "
            "published checkpoints: set RESDEPLOY_DATA to the folder that holds cifar10/ and "
            "checkpoints/"
        )


def drift_of(row: Published, data: Path, folder: Path) -> dict[str, DriftRecord]:
    """`onnx`, `int8-7bit` and `int8-8bit` against eager."""
    from resdeploy.pipeline.evaluate import check
    from resdeploy.pipeline.produce import export
    from resdeploy.pipeline.quantize import quantize
    from resdeploy.records import QuantizeOptions
    from resdeploy.words import WeightBitsChoice

    weights = data / "checkpoints" / row.file
    floats = export(row.model, weights=weights, output=folder / "onnx.onnx").path
    paths = [floats]
    for bits in (WeightBitsChoice.SEVEN, WeightBitsChoice.EIGHT):
        made = quantize(
            str(floats),
            data=str(data / "cifar10" / "calibration"),
            how=QuantizeOptions(weight_bits=bits),
            output=folder / f"int8-{bits.value}bit.onnx",
        )
        paths.append(made.artifact.path)
    records = check(paths, data=str(data / "cifar10" / "evaluation"))
    return {record.name: record for record in records}


def figures_of(record: DriftFigures) -> dict[str, Any]:
    """The numbers of a record that a reader wants."""
    return {
        "samples": record.samples,
        "right_reference": hits(record.top1_reference, record.samples),
        "right_candidate": hits(record.top1_candidate, record.samples),
        "flips": record.flips,
        "top1_agreement": record.top1_agreement,
        "sqnr_db": record.sqnr_db,
        "cosine_min": record.cosine_min,
        "max_abs": record.max_abs,
        "mean_abs": record.mean_abs,
        "nonfinite": record.nonfinite,
    }


def hits(fraction: float | None, samples: int) -> int | None:
    """How many images a fraction of them is."""
    return None if fraction is None else round(fraction * samples)


def targets_of(row: Published, found: dict[str, DriftRecord], *, exact: bool) -> list[Target]:
    """exact: sums of 8-bit products do not saturate on this CPU."""
    onnx = found["onnx"]
    targets = [
        exactly(f"{row.model}: images", 2000, onnx.samples),
        exactly(
            f"{row.model}: eager FP32 right", row.hits, hits(onnx.top1_reference, onnx.samples)
        ),
        exactly(f"{row.model}: ONNX flips", 0, onnx.flips),
    ]
    for bits in (7, 8) if exact else (7,):
        agreement = found[f"int8-{bits}bit"].top1_agreement
        value = float("nan") if agreement is None else agreement
        name = f"{row.model}: INT8 agreement, {bits}-bit weights"
        targets.append(at_least(name, AGREEMENT, value))
    return targets


def measure(data: Path) -> Findings:
    """Both checkpoints."""
    require_data(data)
    from resdeploy.measure.machine import machine_facts, weight_bits_for

    bits = weight_bits_for(machine_facts())
    figures: dict[str, Any] = {}
    targets: list[Target] = []
    for row in PUBLISHED:
        with tempfile.TemporaryDirectory(prefix="resdeploy-cifar10-") as folder:
            found = drift_of(row, data, Path(folder))
        figures[row.model] = {name: figures_of(record) for name, record in found.items()}
        targets += targets_of(row, found, exact=bits.bits == 8)
    return Findings(
        settings={
            "checkpoints": [row.file for row in PUBLISHED],
            "calibration_images": 520,
            "default_weight_bits": bits.bits,
            "default_weight_bits_reason": bits.reason,
        },
        figures=figures,
        targets=tuple(targets),
    )


def main() -> int:
    """Parse, measure, conclude."""
    default = Path(os.environ.get("RESDEPLOY_DATA") or ROOT.parent / "shared" / "data")
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=default, help=f"[default: {default}]")
    given = parser.parse_args()
    claim = "CIFAR-10 ResNets keep all answers through ONNX and 97.5 % through INT8"
    return conclude("cifar10_fidelity", claim, given.results, lambda: measure(given.data))


if __name__ == "__main__":
    sys.exit(main())
