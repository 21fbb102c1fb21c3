"""The drawings: complete, the same every time, and parts of a page without side effects."""

from __future__ import annotations

import math
import tomllib
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.records import TargetStatus
from resdeploy.report.plots import INKS, chain_of, drift_svg, latency_svg, log_counts, time_ticks
from resdeploy.report.recipe_text import toml_from_recipe
from resdeploy.report.svg import inline_svg
from tests import factories as make

RESULT = make.run_result()


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter() if element.tag.endswith("text")]


def test_the_latency_drawing_names_every_runner_at_every_batch() -> None:
    words = texts(latency_svg(RESULT.bench, RESULT.targets))
    assert words.count("reference") == 2
    assert words.count("ort-int8") == 2
    assert {"Batch 1", "Batch 8"} <= set(words)
    figures = [word.replace("\u00a0", " ") for word in words]
    assert "p50 0.409 · p99 0.442 ms" in figures


def test_the_drift_drawing_follows_each_target_and_says_identical() -> None:
    words = [word.replace("\u00a0", " ") for word in texts(drift_svg(RESULT))]
    assert "reference → onnx-fp32" in words
    assert "reference → ort-int8" in words
    assert "reference → trt-int8" not in words
    assert words.count("identical · 100 % agree") == 2
    assert "27.4 dB · 99.50 % agree" in words


def test_the_step_where_answers_change_has_an_ink_of_its_own() -> None:
    assert drift_svg(RESULT).count(INKS["loss"]) == 1
    steady = make.run_result(drift=(make.identical("export"), make.identical("ort-int8")))
    assert INKS["loss"] not in drift_svg(steady)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (make.drift(nonfinite=4, sqnr_db=None), "4 outputs NaN or infinite"),
        (make.drift(samples=0), "not compared"),
        (make.drift(sqnr_db=None), "not compared"),
        (make.drift(sqnr_db=-12.5), "\u221212.5\u00a0dB · 99.50\u00a0% agree"),
        (make.drift(sqnr_db=-math.inf), "\u2212inf\u00a0dB · 99.50\u00a0% agree"),
    ],
)
def test_what_cannot_be_drawn_is_said(record: object, said: str) -> None:
    assert said in texts(drift_svg(make.run_result(drift=(record,))))


def test_nothing_to_draw_is_no_drawing() -> None:
    assert latency_svg((), RESULT.targets) == ""
    assert drift_svg(make.run_result(drift=())) == ""
    skipped = make.target(status=TargetStatus.SKIPPED)
    assert drift_svg(make.run_result(targets=(skipped,))) == ""


@pytest.mark.parametrize("around_ms", [0.3, 3.0, 500.0])
def test_fast_and_slow_runners_share_one_drawing(around_ms: float) -> None:
    bench = (make.latency("reference", around_ms=500.0), make.latency(around_ms=around_ms))
    assert latency_svg(bench, RESULT.targets).count("<text") >= 8


def test_names_of_any_script_and_with_dollars_are_drawn_as_they_are() -> None:
    words = texts(latency_svg((make.latency("模型 $x^2$ <b>"),), ()))
    assert "模型 $x^2$ <b>" in words


def test_drawing_twice_gives_equal_bytes_and_leaves_no_trace() -> None:
    before = dict(mpl.rcParams)
    assert drift_svg(RESULT) == drift_svg(RESULT)
    assert latency_svg(RESULT.bench, ()) == latency_svg(RESULT.bench, ())
    assert dict(mpl.rcParams) == before


def test_a_drawing_in_a_page_has_its_own_ids_the_pages_font_and_its_inks() -> None:
    svg = inline_svg(drift_svg(RESULT), prefix="drift", label='say "this"', inks=INKS)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == 'say "this"'
    assert all(e.attrib["id"].startswith("drift-") for e in root.iter() if "id" in e.attrib)
    assert "font-family" not in svg
    assert "http" not in svg
    assert "<style" not in svg
    assert "var(--ink-candidate, #" in svg


def test_the_chain_of_a_target_ends_in_the_target_itself_once() -> None:
    assert chain_of(make.target("a", chain=("export",))) == ("export", "a")
    assert chain_of(make.target("a", chain=("export", "a"))) == ("export", "a")


@given(st.floats(1e-3, 1e3), st.floats(1.05, 1e5))
def test_there_are_a_few_round_times_on_any_axis(low: float, factor: float) -> None:
    ticks = time_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 10
    assert ticks == sorted(set(ticks))


@given(st.lists(st.floats(0.01, 1e3), min_size=1))
def test_every_sample_is_counted_once(values: list[float]) -> None:
    assert sum(log_counts(values, (0.1, 100.0), 20)) == len(values)


@pytest.mark.parametrize(
    "recipe",
    [
        make.RECIPE,
        {"a b": 'quote " and \\ and \n', "é": "é", "x": 1e-05, "y": 1e16, "z": True},
        {"list": [1, 2.5, "x"], "empty": [], "none": {}, "nested": {"a": {"b": [{"c": 1}]}}},
        {"control": "\x00\x1f\x7f"},
    ],
)
def test_a_recipe_survives_being_written(recipe: dict[str, object]) -> None:
    assert tomllib.loads(toml_from_recipe(recipe)) == recipe


def test_keys_without_a_value_are_left_out() -> None:
    assert toml_from_recipe({"a": None, "b": {"c": None, "d": 1}}) == "b = { d = 1 }\n"
