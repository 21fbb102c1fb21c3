"""Accuracy against latency, batches and classes: what is drawn, and what is on the front."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.records import ClassHits
from resdeploy.report.charts import (
    Point,
    classes_svg,
    front_of,
    knee_of,
    points_of,
    sweep_svg,
    trade_svg,
)
from resdeploy.report.flips import change_of, changed_classes, classes_grid, flips_view
from tests import factories as make

RESULT = make.run_result()


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    words = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    return [word.replace("\u00a0", " ") for word in words]


POINTS = st.lists(
    st.builds(
        Point,
        name=st.just("x"),
        time_ms=st.sampled_from([1.0, 2.0, 3.0, 4.0]),
        accuracy=st.sampled_from([0.1, 0.2, 0.3, 0.4]),
        is_target=st.just(True),
    ),
    min_size=1,
    max_size=12,
)


@given(points=POINTS)
def test_nothing_is_beyond_the_front_and_all_of_it_is_needed(points: list[Point]) -> None:
    front = front_of(points)
    for point in points:
        assert any(one.time_ms <= point.time_ms and one.accuracy >= point.accuracy for one in front)
    for one in front:
        others = [other for other in front if other is not one]
        assert not any(
            other.time_ms <= one.time_ms and other.accuracy >= one.accuracy for other in others
        )
    assert [point.time_ms for point in front] == sorted(point.time_ms for point in front)


def test_accuracy_is_top_1_where_there_are_labels_and_agreement_where_not() -> None:
    word, points = points_of(RESULT)
    assert word == "top-1"
    assert [(point.name, point.accuracy) for point in points] == [
        ("reference", 0.9875),
        ("onnx-fp32", 0.9875),
        ("ort-int8", 0.985),
    ]
    drift = tuple(
        row.model_copy(update={"top1_candidate": None, "top1_reference": None})
        for row in RESULT.drift
    )
    word, points = points_of(RESULT.model_copy(update={"drift": drift}))
    assert word == "agreement"
    assert [point.accuracy for point in points] == [1.0, 1.0, 0.995]


def test_the_drawing_names_every_point_and_says_who_is_on_the_front() -> None:
    words = texts(trade_svg(RESULT))
    assert {"1", "2", "3", "reference", "onnx-fp32", "ort-int8"} <= set(words)
    assert [word.endswith("on the front") for word in words if " ms" in word] == [
        False,
        True,
        True,
    ]
    assert trade_svg(RESULT) == trade_svg(make.run_result())
    assert trade_svg(make.run_result(bench=())) == ""


def test_the_knee_is_the_least_batch_that_is_nearly_as_fast() -> None:
    rates = {1: 100.0, 2: 180.0, 4: 286.0, 8: 300.0, 16: 290.0}
    rows = [make.latency(batch=batch, images_per_s=rate) for batch, rate in rates.items()]
    assert knee_of(rows).batch == 4
    assert knee_of(rows[:1]).batch == 1
    words = texts(sweep_svg(rows, ["ort-int8"]))
    assert any("at batch 4" in word for word in words)
    assert sweep_svg(rows[:1], ["ort-int8"]) == ""


def hits(*pairs: tuple[int, int]) -> tuple[ClassHits, ...]:
    return tuple(
        ClassHits(label=label, images=20, reference=before, candidate=after)
        for label, (before, after) in enumerate(pairs)
    )


def test_the_classes_that_changed_most_are_shown_the_worst_first() -> None:
    record = make.drift(per_class=hits((20, 18), (10, 10), (5, 9), (20, 13)))
    assert [row.label for row in changed_classes(record)] == [3, 0, 2]
    assert change_of(record.per_class[3]) == pytest.approx(-0.35)
    assert {"three", "zero", "two"} <= set(texts(classes_svg(record)))
    grid = classes_grid(record)
    assert [row[0].text for row in grid.rows] == ["three", "zero", "two"]
    assert "1 of 4 classes are not shown" in grid.caption
    many = make.drift(per_class=hits(*((20, index) for index in range(20))))
    assert [row.label for row in changed_classes(many)] == list(range(12))
    assert classes_svg(make.drift(per_class=hits((3, 3)))) == ""


def test_flips_have_their_pictures_where_there_are_some() -> None:
    record = make.drift()
    first, second = record.flipped
    seen = flips_view(record, RESULT.model_copy(update={"pictures": {second.id: "AAAA"}}))
    (picture,) = seen.pictures
    assert picture.id == second.id
    assert (picture.before, picture.after, picture.tone) == ("nine", "seven", "won")
    assert "the reference says nine, the candidate seven; label seven" in picture.alt
    assert seen.left == "1 more are not shown."
    lost = flips_view(record, RESULT.model_copy(update={"pictures": {first.id: "AAAA"}}))
    assert lost.pictures[0].tone == "lost"
    noise = make.drift(data=make.data(synthetic=True))
    assert "noise" in flips_view(noise, RESULT).why
