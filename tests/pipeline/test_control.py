"""A bound on what INT8 may lose: the layer that breaks it stays float, or nothing is written.

The nets are the digits model with tensors ruined for INT8 alone: one channel is 3,000 times as
large as it was, and the layers around take that back. Float answers are the same; eight bits for
the whole tensor leave nothing of the other channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from resdeploy import check, export, quantize
from resdeploy.artifact import open_artifact
from resdeploy.errors import DataError, UsageError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.scaling.apply import scale_channels
from resdeploy.graph.scaling.ties import ties_of
from resdeploy.graph.shapes import shapes_of
from resdeploy.pipeline.int8.control import Bound
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.pipeline.quantize import Quantized
from resdeploy.quantization.table import read_table
from resdeploy.records import QuantizationFacts, QuantizeOptions, TensorFacts
from tests.conftest import ROOT, Cli

RUINED = "/layer2/layer2.0/conv2/Conv"
INSIDE, TRUNK = "/layer2/layer2.0/relu1/Relu_output_0", "/relu/Relu_output_0"
CHANNEL, FACTOR = 5, 3000
IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
CHOICE = InputChoice(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# Equalization would heal some of it.
HOW = QuantizeOptions(equalize=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a sound net and two ruined ones."""
    made = tmp_path_factory.mktemp("control")
    for name, count in (("calibration", 32), ("evaluation", 80)):
        found = np.load(ROOT / "resdeploy" / "assets" / "digits" / f"{name}.npz")
        rows = slice(0, 2 * count, 2)
        labels = found["labels"][rows]
        np.savez(made / f"{name}.npz", images=found["images"][rows], labels=labels)
    found = np.load(made / "evaluation.npz")
    np.savez(made / "unlabelled.npz", images=found["images"])
    sound = export("resnet20", weights="embedded:digits", output=made / "sound.onnx").path
    ruin(sound, INSIDE, made / "ruined.onnx")
    ruin(sound, TRUNK, made / "hopeless.onnx")
    return made


def ruin(sound: Path, tensor: str, path: Path) -> None:
    """One channel of a tensor, and of all that is added to it, is made large."""
    model = read_model(sound)
    image = TensorFacts(name="input", dtype="float", shape=(1, 3, 32, 32))
    ties = ties_of(model, shapes_of(model, image))
    factors = np.ones(ties.factors)
    factors[ties.groups[tensor][CHANNEL]] = 1 / FACTOR
    scale_channels(model, ties, factors)
    write_model(model, path)


def bound(folder: Path, **asked: float) -> Bound:
    return Bound(evaluation=str(folder / "evaluation.npz"), **asked)


def facts_of(made: Quantized) -> QuantizationFacts:
    manifest = made.artifact.manifest
    assert manifest is not None
    assert manifest.quantization is not None
    return manifest.quantization


def test_exactly_the_layer_that_breaks_the_bound_stays_float(folder: Path) -> None:
    told: list[str] = []
    made = quantize(
        str(folder / "ruined.onnx"),
        data=str(folder / "calibration.npz"),
        how=HOW,
        bound=bound(folder, min_agreement=0.975),
        output=folder / "bounded.onnx",
        choice=CHOICE,
        notify=told.append,
    )
    assert facts_of(made).kept == (RUINED,)
    assert sum("left in float for the bound" in row and RUINED in row for row in told) == 1
    assert any("left in float" in step and RUINED in step for step in facts_of(made).steps)
    on_disk = open_artifact(made.artifact.path).manifest
    assert on_disk is not None
    assert on_disk.quantization == facts_of(made)
    (drift,) = check(
        [made.artifact.path],
        data=str(folder / "evaluation.npz"),
        reference="resnet20",
        weights="embedded:digits",
        runtime="ort-exact",
    )
    assert drift.top1_agreement is not None
    assert drift.top1_agreement >= 0.975


def test_a_bound_that_holds_leaves_nothing_in_float(folder: Path) -> None:
    told: list[str] = []
    made = quantize(
        str(folder / "sound.onnx"),
        data=str(folder / "calibration.npz"),
        bound=bound(folder, min_agreement=0.95, max_drop=0.05),
        output=folder / "sound-int8.onnx",
        notify=told.append,
    )
    assert facts_of(made).kept == ()
    assert not any("left in float for the bound" in row for row in told)
    # Labels without names are classes all the same.
    audit = read_table(made.table).header.audit
    assert set(audit.per_class) <= set("0123456789")
    assert sum(audit.per_class.values()) == audit.images


def test_a_bound_that_cannot_be_held_fails_and_writes_nothing(folder: Path, cli: Cli) -> None:
    """The sums of the trunk are rounded whatever is left in float."""
    out = folder / "never.onnx"
    said = cli(
        "quantize", folder / "hopeless.onnx", "--data", folder / "calibration.npz", *IMAGENET,
        "--no-equalize", "--min-agreement", "1.0", "--evaluation", folder / "evaluation.npz",
        "-o", out,
    )  # fmt: skip
    assert said.code == 1
    assert said.out == ""
    assert "layers in float, agreement is" in said.err
    assert "asked for 1.0" in said.err
    left = {path.name for path in folder.iterdir() if path.name.startswith("never")}
    assert left == set()


def test_what_contradicts_itself_is_refused(folder: Path) -> None:
    model, images = str(folder / "sound.onnx"), str(folder / "calibration.npz")
    cases: list[tuple[str, Bound, str | None, QuantizeOptions]] = [
        ("have no images to hold on", Bound(min_agreement=0.9), images, HOW),
        (
            "--max-drop needs labels",
            Bound(max_drop=0.1, evaluation=str(folder / "unlabelled.npz")),
            images,
            HOW,
        ),
        (
            "--keep does not go with",
            bound(folder, max_drop=0.1),
            images,
            QuantizeOptions(keep=(RUINED,)),
        ),
        ("nothing to calibrate with", Bound(), None, HOW),
    ]
    for told, asked, data, how in cases:
        with pytest.raises(UsageError, match=told) as raised:
            quantize(model, data=data, how=how, bound=asked, output=folder / "never.onnx")
        assert raised.value.hint or told.startswith("--keep")
    with pytest.raises(DataError, match="in both the calibration data"):
        quantize(
            model,
            data=images,
            bound=Bound(min_agreement=0.9, evaluation=images),
            output=folder / "never.onnx",
        )
    assert not (folder / "never.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--min-agreement", "98", "--evaluation", "evaluation.npz"), "--min-agreement is 98"),
        (("--max-drop", "-0.1", "--evaluation", "evaluation.npz"), "--max-drop is -0.1"),
        (("--evaluation", "evaluation.npz"), "--evaluation goes with"),
        (("--min-agreement", "0.9"), "no images to hold on"),
    ],
)
def test_the_command_refuses_with_code_2(
    arguments: tuple[str, ...], told: str, folder: Path, cli: Cli
) -> None:
    named = [folder / row if row.endswith(".npz") else row for row in arguments]
    model, out = folder / "sound.onnx", folder / "never.onnx"
    said = cli("quantize", model, "--data", folder / "calibration.npz", *named, "-o", out)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert not out.exists()


def part_of(folder: Path, name: str, rows: slice, source: str = "calibration") -> Path:
    found = np.load(folder / f"{source}.npz")
    path = folder / f"{name}.npz"
    np.savez(path, images=found["images"][rows], labels=found["labels"][rows])
    return path


def tabled(folder: Path, images: Path) -> Path:
    """The calibration table of some images."""
    out = images.with_suffix(".onnx")
    return quantize(str(folder / "sound.onnx"), data=str(images), output=out).table


def test_tables_take_the_place_of_the_images(folder: Path, cli: Cli) -> None:
    """Two tables of half of the images each are one of all, to the byte of the INT8 file."""
    halves = [
        tabled(folder, part_of(folder, name, rows))
        for name, rows in (("even", slice(0, None, 2)), ("odd", slice(1, None, 2)))
    ]
    whole = tabled(folder, part_of(folder, "whole", slice(None)))
    merged_out, whole_out = folder / "from-halves.onnx", folder / "from-whole.onnx"
    told: list[str] = []
    made = quantize(
        str(folder / "sound.onnx"), tables=halves, output=merged_out, notify=told.append
    )
    assert any("rounded to the nearest" in row for row in told)
    assert facts_of(made).calibration.data.samples == 32
    said = cli("quantize", folder / "sound.onnx", "--table", whole, "-o", whole_out)
    assert said.code == 0
    assert merged_out.read_bytes() == whole_out.read_bytes()
    # The table beside the file is that of all images.
    assert len(read_table(made.table).header.images) == 32
    (drift,) = check([merged_out], data=str(folder / "evaluation.npz"), runtime="ort-exact")
    assert drift.top1_agreement is not None
    assert drift.top1_agreement > 0.9

    refused = cli("quantize", folder / "ruined.onnx", "--table", whole, "-o", folder / "no.onnx")
    assert refused.code == 2
    assert "made for graph" in refused.err
    twice = cli(
        "quantize", folder / "sound.onnx", "--table", whole, "--table", halves[0],
        "-o", folder / "no.onnx",
    )  # fmt: skip
    assert twice.code == 2
    assert "in more than one" in twice.err


def test_a_table_that_saw_the_evaluation_images_is_refused(folder: Path) -> None:
    seen = tabled(folder, part_of(folder, "seen", slice(3, 15), "evaluation"))
    with pytest.raises(DataError, match="made from 12 images of the evaluation data"):
        quantize(
            str(folder / "sound.onnx"),
            data=str(folder / "calibration.npz"),
            tables=[seen],
            bound=bound(folder, min_agreement=0.5),
            output=folder / "never.onnx",
        )
    assert not (folder / "never.onnx").exists()
