"""INT8 files of ours are closer to FP32 than those of any other quantizer, on trained ResNets.

    RESDEPLOY_DATA=../shared/data python benchmarks/int8_fidelity.py \
        --peer-python /path/to/nncf/bin/python --peer-python /path/to/modelopt/bin/python

Claim: on two published CIFAR-10 checkpoints, the signal-to-noise ratio of our logits is 2 dB
above that of the best peer, measured in the same run and as it was known before: for ort-cpu
with 8-bit weights and for tensorrt as the graph is written, for ort-cpu with 7-bit weights as
this CPU runs it; and the latter two name the class that FP32 names on 98.5 % of the images.

Method: `resdeploy export` writes a float ONNX file. From it, and from the same 512 calibration
images (evenly spaced among 520), the peers of `peer_quantize.py` and ours make INT8 files, each
in a process of its own, ours at their defaults. All answer the same 2,000 evaluation images and
are held against the float file in ONNX Runtime:

- `exact`: ONNX Runtime without graph optimizations. Q/DQ pairs round, the rest is float; that is
  what TensorRT computes, up to float rounding, and any CPU that does not saturate.
- `ort`: ONNX Runtime as it comes, with the kernels of this CPU.
- `openvino`: OpenVINO as it comes, where it is installed.

`techniques` are ours with one technique switched off in turn, and without any.

How to read it: SQNR = 10·log10(Σ reference² / Σ (candidate − reference)²). A peer is compared
with ours of its kind: graphs for CPUs with 8-bit weights, with 7-bit weights, and symmetric ones
for TensorRT. `margins` name the best one. Seconds and peak memory are of whole processes, imports
included. A quantizer that failed is a row with its last words, and no peer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar10_fidelity import PUBLISHED, Published, figures_of, require_data
from common import ROOT, CannotRunError, Findings, Target, at_least, conclude, parser_of
from peer_quantize import PEERS, Peer
from peers import Made, Workplace, add_options, made_by, made_by_us, save_images, workplace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resdeploy.contracts import Batch, Runner

CALIBRATION_IMAGES = 512
BATCH = 100
MARGIN_DB = 2.0
AGREEMENT = 0.985
EXACT, ORT, OPENVINO = "exact", "ort", "openvino"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A file of ours, and what is asked of it.

    kind: of the peers that it is compared with.
    reading: how the answers that are compared are computed.
    known_db: what the best peer had on each model before this was written; empty asks nothing.
    agreement: the least share of images with FP32's class; None asks nothing.
    """

    name: str
    choices: dict[str, Any]
    kind: str
    reading: str
    known_db: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None


OURS = (
    Ours(
        name="ort-cpu",
        choices={"target": "ort-cpu", "weight_bits": "8"},
        kind="cpu",
        reading=EXACT,
        known_db={"resnet20": 27.7, "resnet56": 26.4},  # ONNX Runtime, min/max, U8 and S8
    ),
    Ours(
        name="ort-cpu-7bit",
        choices={"target": "ort-cpu", "weight_bits": "7"},
        kind="cpu-7bit",
        reading=ORT,
        known_db={"resnet20": 25.2, "resnet56": 25.5},  # the same with reduce_range
        agreement=AGREEMENT,
    ),
    Ours(
        name="tensorrt",
        choices={"target": "tensorrt"},
        kind="tensorrt",
        reading=EXACT,
        known_db={"resnet20": 27.1, "resnet56": 24.4},  # Model-Optimizer 0.47, entropy
        agreement=AGREEMENT,
    ),
    Ours(
        name="openvino",
        choices={"target": "openvino", "weight_bits": "8"},
        kind="cpu",
        reading=OPENVINO,
    ),
)

# What differs from our defaults.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "no pixel grid": {"pixel_grid": False},
    "no equalization": {"equalize": False},
    "min/max ranges": {"method": "minmax"},
    "no bias correction": {"correct_bias": False},
    "no weight rounding": {"round_weights": False},
}
TECHNIQUES["none of them"] = {name: off for row in TECHNIQUES.values() for name, off in row.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Images with their labels, and FP32's logits [N, classes] for each batch."""

    batches: tuple[Batch, ...]
    logits: tuple[NDArray[np.float32], ...]


def evaluation_of(floats: Path, data: Path, threads: int) -> Evaluation:
    """All evaluation images, as the file takes them, and its answers in ONNX Runtime."""
    from resdeploy.data import source_from_reference
    from resdeploy.runtimes import OrtRunner

    source = source_from_reference(str(data / "cifar10" / "evaluation"))
    batches = tuple(source.batches(preprocess_of(floats), BATCH))
    with OrtRunner(floats, threads=threads) as runner:
        return Evaluation(
            batches=batches, logits=tuple(runner.run(batch.images) for batch in batches)
        )


def preprocess_of(floats: Path) -> Any:
    """What the sidecar of a file that we exported says about its images."""
    from resdeploy.artifact import open_artifact

    manifest = open_artifact(floats).manifest
    if manifest is None:
        raise CannotRunError(f"{floats} has no sidecar, so its preprocessing is unknown")
    return manifest.preprocess


def runners_of(path: Path, threads: int) -> dict[str, Runner]:
    """A Runner, not yet opened, for each way in which the answers of a file are computed."""
    from resdeploy.runtimes import RUNTIMES, Optimization, OrtRunner
    from resdeploy.table import load_target

    runners: dict[str, Runner] = {
        EXACT: OrtRunner(path, threads=threads, optimization=Optimization.NONE),
        ORT: OrtRunner(path, threads=threads),
    }
    if OPENVINO in RUNTIMES and RUNTIMES[OPENVINO].is_installed():
        row = RUNTIMES[OPENVINO]
        made = load_target(row.target, extra=row.extra, why="the reading openvino")
        runners[OPENVINO] = made(path, threads=threads)
    return runners


def readings_of(made: Made, evaluation: Evaluation, threads: int) -> dict[str, Any]:
    """The figures of a row: how it was made, and its drift in each way it can be run."""
    if made.path is None:
        return made.figures
    runners = runners_of(made.path, threads)
    drifts = {name: drift_of(runner, evaluation) for name, runner in runners.items()}
    return {**made.figures, **drifts}


def drift_of(runner: Runner, evaluation: Evaluation) -> dict[str, Any]:
    """How far a file's answers are from FP32's; a runtime that refuses the file says why."""
    from resdeploy.errors import GraphError
    from resdeploy.measure.drift import DriftMeter

    meter = DriftMeter()
    try:
        with runner:
            for batch, logits in zip(evaluation.batches, evaluation.logits, strict=True):
                meter.add(batch, logits, runner.run(batch.images))
    except GraphError as error:
        return {"failed": str(error)}
    return figures_of(meter.result())


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A published checkpoint as a float ONNX file, and the images it is quantized and judged on.

    calibration: the folder that ours read; images: the same ones preprocessed, for the peers.
    """

    model: str
    floats: Path
    calibration: str
    images: Path
    evaluation: Evaluation
    place: Workplace
    threads: int

    def peer(self, peer: Peer) -> dict[str, Any]:
        """The row of a peer."""
        return self._row(peer.name, made_by(peer, self.floats, self.images, self.place))

    def ours(self, name: str, choices: dict[str, Any]) -> dict[str, Any]:
        """The row of a file of ours, which goes away."""
        with tempfile.TemporaryDirectory(prefix="resdeploy-ours-") as folder:
            output = Path(folder) / "int8.onnx"
            given = (self.floats, self.calibration, output, CALIBRATION_IMAGES, choices)
            return self._row(name, made_by_us(name, *given))

    def _row(self, name: str, made: Made) -> dict[str, Any]:
        return shown(self.model, name, readings_of(made, self.evaluation, self.threads))


def rows_of(row: Published, data: Path, place: Workplace, threads: int) -> dict[str, Any]:
    """`peers`, `ours` and `techniques` of one checkpoint."""
    from resdeploy.data import source_from_reference
    from resdeploy.pipeline.produce import export

    calibration = str(data / "cifar10" / "calibration")
    with tempfile.TemporaryDirectory(prefix="resdeploy-int8-") as name:
        floats, images = Path(name) / "float.onnx", Path(name) / "images.npy"
        export(row.model, weights=data / "checkpoints" / row.file, output=floats)
        source = source_from_reference(calibration, samples=CALIBRATION_IMAGES)
        save_images(source, preprocess_of(floats), images)
        checkpoint = Checkpoint(
            model=row.model,
            floats=floats,
            calibration=calibration,
            images=images,
            evaluation=evaluation_of(floats, data, threads),
            place=place,
            threads=threads,
        )
        return {
            "peers": {peer.name: checkpoint.peer(peer) for peer in PEERS.values()},
            "ours": {ours.name: checkpoint.ours(ours.name, ours.choices) for ours in OURS},
            "techniques": {ours.name: techniques_of(checkpoint, ours) for ours in OURS},
        }


def techniques_of(checkpoint: Checkpoint, ours: Ours) -> dict[str, Any]:
    """A file of ours with each technique switched off in turn."""
    return {
        label: checkpoint.ours(f"{ours.name}, {label}", {**ours.choices, **off})
        for label, off in TECHNIQUES.items()
    }


def shown(model: str, label: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row, after a line of it was printed."""
    if "failed" in row:
        last = row["failed"].splitlines()[-1]
        print(f"{model}  {label:36} failed: {last}", flush=True)
        return row
    cells = [f"{row['seconds']:5.1f} s {row['peak_bytes'] / 1e9:5.2f} GB"]
    for reading in (EXACT, ORT, OPENVINO):
        drift = row.get(reading, {"failed": "not run"})
        if "failed" in drift:
            cells.append(f"{reading} {drift['failed']}")
            continue
        db, same = drift["sqnr_db"], drift["top1_agreement"]
        cells.append(f"{reading} {db:5.2f} dB {same:7.2%} {drift['right_candidate']} right")
    print(f"{model}  {label:36} {' | '.join(cells)}", flush=True)
    return row


def value_of(row: dict[str, Any], reading: str, figure: str) -> float:
    """A figure of a row; NaN, which no target holds, where it was not measured."""
    value = row.get(reading, {}).get(figure)
    return float("nan") if value is None else float(value)


def margin_of(ours: Ours, model: str, found: dict[str, Any]) -> dict[str, Any]:
    """Ours, the best peer of its kind in the same reading, and the difference in dB."""
    own = value_of(found["ours"][ours.name], ours.reading, "sqnr_db")
    theirs = {
        name: value_of(row, ours.reading, "sqnr_db")
        for name, row in found["peers"].items()
        if row["kind"] == ours.kind
    }
    measured = {name: db for name, db in theirs.items() if db == db}
    best = max(measured, key=measured.__getitem__, default=None)
    best_db = None if best is None else measured[best]
    margin = float("nan") if best_db is None else own - best_db
    known = ours.known_db.get(model)
    return {
        "reading": ours.reading,
        "sqnr_db": finite(own),
        "best_peer": best,
        "best_peer_db": best_db,
        "margin_db": finite(margin),
        "known_peer_db": known,
        "margin_to_known_db": None if known is None else finite(own - known),
    }


def finite(value: float) -> float | None:
    """The value, or null for NaN, which JSON has not."""
    return value if value == value else None


def targets_of(model: str, found: dict[str, Any]) -> list[Target]:
    """What is asked of each file of ours: to beat both peers' figures, and to agree."""
    targets = []
    for ours in OURS:
        if not ours.known_db:
            continue
        margin = margin_of(ours, model, found)
        name = f"{model}: {ours.name}, {ours.reading}"
        for against, key in (
            (f"best peer here ({margin['best_peer']})", "margin_db"),
            (f"peer known before ({margin['known_peer_db']} dB)", "margin_to_known_db"),
        ):
            value = float("nan") if margin[key] is None else margin[key]
            targets.append(at_least(f"{name}, SQNR - {against}", MARGIN_DB, value, "dB"))
        if ours.agreement is not None:
            value = value_of(found["ours"][ours.name], ours.reading, "top1_agreement")
            targets.append(at_least(f"{name}, agreement", ours.agreement, value))
    return targets


def measure(data: Path, pythons: Sequence[Path], work: Path | None) -> Findings:
    """Both checkpoints."""
    require_data(data)
    from resdeploy.measure.machine import machine_facts

    threads = machine_facts().cores
    with workplace(pythons, work) as place:
        figures = {row.model: rows_of(row, data, place, threads) for row in PUBLISHED}
    margins = {
        model: {ours.name: margin_of(ours, model, found) for ours in OURS}
        for model, found in figures.items()
    }
    return Findings(
        settings={
            "checkpoints": [row.file for row in PUBLISHED],
            "calibration_images": CALIBRATION_IMAGES,
            "threads": threads,
            "pythons": [python.versions for python in place.pythons],
            "ours": {row.name: row.choices for row in OURS},
            "techniques": TECHNIQUES,
        },
        figures={"margins": margins, **figures},
        targets=tuple(
            target for model, found in figures.items() for target in targets_of(model, found)
        ),
    )


def main() -> int:
    """Parse, measure, conclude."""
    default = Path(os.environ.get("RESDEPLOY_DATA") or ROOT.parent / "shared" / "data")
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=default, help=f"[default: {default}]")
    add_options(parser)
    given = parser.parse_args()
    claim = "INT8 on CIFAR-10 ResNets: 2 dB closer to FP32 than the best peer, 98.5 % agreement"
    return conclude(
        "int8_fidelity",
        claim,
        given.results,
        lambda: measure(given.data, given.peer_python, given.work),
    )


if __name__ == "__main__":
    sys.exit(main())
