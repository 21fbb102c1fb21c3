"""Layers in words and as a drawing: the worst one is named, and what is not known is said."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from resdeploy.records import LayerDrift, LayersRecord
from resdeploy.report.layer_plot import layers_svg
from resdeploy.report.layers import layers_grid, remarks_on_layers, verdict_of_layers
from resdeploy.report.plots import INKS
from tests import factories as make

NBSP = "\u00a0"


def layer(name: str, own_db: float | None, **changed: Any) -> LayerDrift:
    facts = {
        "name": name,
        "kind": "Conv2d",
        "tensor": f"/{name}/Conv_output_0",
        "operators": ("Conv",),
        "reads": (),
        "sqnr_db": 30.0,
        "own_sqnr_db": own_db,
        "fall_db": 1.5,
    }
    return LayerDrift(**(facts | changed))


def record(*layers: LayerDrift, worst: str | None, **changed: Any) -> LayersRecord:
    facts = {
        "name": "ort-int8",
        "path": "ort-int8.onnx",
        "runtime": "ort-exact",
        "sha256": make.sha("ort-int8"),
        "data": make.data(),
        "trained": True,
        "samples": 400,
        "layers": layers,
        "unpaired": (),
        "worst_layer": worst,
        "answers_sqnr_db": 28.0,
        "agreement_sqnr_db": 41.0,
        "drift": make.drift(runtime="ort"),
    }
    return LayersRecord(**(facts | changed))


SOUND = (layer("conv1", 40.0), layer("conv2", 42.0), layer("fc", 44.0))


def test_a_layer_far_below_the_others_is_named_and_nothing_is_made_of_small_differences() -> None:
    broken = record(layer("conv1", 40.0), layer("conv2", 10.4), layer("fc", 44.0), worst="conv2")
    assert verdict_of_layers(broken).replace(NBSP, " ") == (
        "ort-int8: conv2 adds the most noise of its own, SQNR 10.4 dB (42.0 dB is usual here)."
    )
    said = verdict_of_layers(record(*SOUND, worst="conv1"))
    assert said.endswith("that is not much, and none stands out.")


def test_layers_that_only_move_values_do_not_make_others_look_bad() -> None:
    moving = [layer(f"relu{n}", 150.0, operators=("Relu",)) for n in range(9)]
    assert "none stands out" in verdict_of_layers(record(*SOUND, *moving, worst="conv1"))


def test_no_noise_no_images_and_infinity_are_said_as_such() -> None:
    same = layer("conv1", None, sqnr_db=None, fall_db=None)
    assert "no layer adds any noise" in verdict_of_layers(record(same, worst=None))
    assert "no image" in verdict_of_layers(record(samples=0, worst=None))
    broken = layer("conv1", None, sqnr_db=None, fall_db=None, nonfinite=True)
    assert "NaN or ∞" in verdict_of_layers(record(broken, *SOUND[1:], worst="conv1"))
    cells = [
        cell.text for row in layers_grid(record(same, broken, worst=None)).rows for cell in row
    ]
    assert cells.count("identical") == 2
    assert cells.count("NaN or ∞") == 2


def test_remarks_say_whose_figures_these_are_and_what_is_missing() -> None:
    said = " ".join(remarks_on_layers(record(*SOUND, worst="conv1", unpaired=tuple("abcdef"))))
    assert "ort gives answers 41.0 dB from it" in said.replace(NBSP, " ")
    assert "6 (a, b, c, d and 2 more)" in said
    plain = remarks_on_layers(record(*SOUND, worst="conv1", agreement_sqnr_db=None))
    assert len(plain) == 1
    assert "the same answers" in plain[0]


def test_the_drawing_names_each_candidate_and_its_worst_layer_and_is_always_the_same() -> None:
    records = [record(*SOUND, worst="conv1"), record(*SOUND, worst=None, name="b")]
    svg = layers_svg(records)
    words = [
        (element.text or "").replace(NBSP, " ")
        for element in ElementTree.fromstring(svg).iter()
        if element.tag.endswith("text")
    ]
    assert {"ort-int8", "b", "no layer adds noise of its own"} <= set(words)
    assert "worst: conv1, 40.0 dB of its own" in words
    assert svg == layers_svg(records)
    assert INKS["loss"] in svg
    assert INKS["loss"] not in layers_svg(records[1:])
    assert layers_svg([record(worst=None)]) == ""


def test_levels_that_cannot_be_drawn_are_left_out() -> None:
    endless = layer("conv1", float("-inf"), sqnr_db=None, nonfinite=True)
    assert "<svg" in layers_svg([record(endless, worst="conv1")])
    assert "<svg" in layers_svg([record(endless, *SOUND, worst="conv1")])
