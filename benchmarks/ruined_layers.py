"""`check --layers` names the layer that was ruined, whichever it is.

    RESDEPLOY_DATA=../shared/data python benchmarks/ruined_layers.py

Claim: for the published checkpoints resnet20-12fca82f.th and resnet56-4bfd9763.th, where the
weights of one layer are 1.3 times what they should be, that layer is named: for each of their
convolutions and the classifier, in FP32, in FP16, and in INT8 for every target.

Method: the product's own API makes the five files of each checkpoint, INT8 calibrated on 64
training images; of each file one copy for each layer is ruined (in INT8 the scale of the weights
is), and `layers` compares it with eager PyTorch on 8 evaluation images. Nothing is random.

How to read it: `figures` counts the files in which the right layer was named, and lists the others
with the layer that was named instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from cifar10_fidelity import PUBLISHED, Published, require_data
from common import ROOT, Findings, conclude, exactly, parser_of

sys.path.append(str(ROOT))  # for what the tests ruin layers with

CALIBRATED_ON, COMPARED_ON = 64, 8


def files_of(row: Published, data: Path, folder: Path) -> dict[str, Path]:
    """A file of each precision, and of each target of INT8."""
    from resdeploy import cast, export, quantize
    from resdeploy.graph import EMITTERS

    weights = data / "checkpoints" / row.file
    floats = export(row.model, weights=weights, output=folder / "fp32.onnx").path
    made = {"fp32": floats, "fp16": cast(floats, output=folder / "fp16.onnx").path}
    for target in EMITTERS.names:
        made[f"int8 {target}"] = quantize(
            str(floats),
            data=str(data / "cifar10" / "calibration"),
            samples=CALIBRATED_ON,
            target=target,
            output=folder / f"{target}.onnx",
        ).artifact.path
    return made


def named(row: Published, kind: str, path: Path, data: Path) -> dict[str, Any]:
    """Each layer ruined in turn: how often it was named, and what was named instead."""
    from resdeploy import layers
    from tests.layer_tools import layers_in, ruined

    right, wrong = 0, {}
    places = list(layers_in(path))
    for place in places:
        print(f"\r{row.model} {kind}: {place}          ", end="", file=sys.stderr, flush=True)
        (record,) = layers(
            [ruined(path, path.with_name("ruined.onnx"), place)],
            data=str(data / "cifar10" / "evaluation"),
            samples=COMPARED_ON,
            reference=row.model,
            weights=data / "checkpoints" / row.file,
        )
        if record.worst_layer == place:
            right += 1
        else:
            wrong[place] = record.worst_layer
    return {"model": row.model, "file": kind, "layers": len(places), "named": right, "wrong": wrong}


def measure(data: Path) -> Findings:
    """Every layer of every file of every checkpoint."""
    require_data(data)
    rows = []
    for row in PUBLISHED:
        with tempfile.TemporaryDirectory(prefix="resdeploy-ruined-") as name:
            for kind, path in files_of(row, data, Path(name)).items():
                rows.append(named(row, kind, path, data))
    total = sum(row["layers"] for row in rows)
    return Findings(
        settings={"factor": 1.3, "calibrated_on": CALIBRATED_ON, "compared_on": COMPARED_ON},
        figures={"files": rows},
        targets=(exactly("ruined layers named", total, sum(row["named"] for row in rows)),),
    )


def main() -> int:
    """Parse, measure, conclude."""
    given = parser_of(__doc__).parse_args()
    data = Path(os.environ.get("RESDEPLOY_DATA", ROOT.parent / "shared" / "data"))
    claim = "check --layers names the ruined layer, each of two networks, in every precision"
    return conclude("ruined_layers", claim, given.results, lambda: measure(data))


if __name__ == "__main__":
    sys.exit(main())
