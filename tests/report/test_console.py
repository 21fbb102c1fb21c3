"""Tables for the terminal: they fit 80 columns, and need no colour."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from resdeploy.gate import changes, judge_result
from resdeploy.records import RunResult, Verdict
from resdeploy.report import console
from tests import factories as make


def printed(renderable: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, force_terminal=False).print(renderable)
    return out.getvalue()


def judged_run(**changed: Any) -> RunResult:
    result = make.run_result(**changed)
    return result.model_copy(update={"judgement": judge_result(result, None)})


RESULT = judged_run()
RENDERABLES = {
    "run": console.run_summary(RESULT),
    "findings": console.findings_table(RESULT.judgement),
    "drift": console.drift_table(RESULT.drift),
    "flips": console.flips_table(RESULT.drift[-1]),
    "latency": console.latency_table(RESULT.bench),
    "steps": console.steps_table(RESULT.steps),
    "changes": console.changes_table(changes(None, make.baseline())),
}


@pytest.mark.parametrize("name", RENDERABLES)
def test_everything_fits_eighty_columns_without_colour(name: str) -> None:
    text = printed(RENDERABLES[name])
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_run_says_verdict_targets_and_reasons() -> None:
    text = printed(RENDERABLES["run"])
    words = " ".join(text.split())
    assert text.startswith(" INCONCLUSIVE  2 of 8 checks could not decide")
    for said in (
        "onnx int8",
        "312 kB",
        "99.50 %",
        "27.4 dB",
        "→ 98.50 %",
        "3.27×",
        "trt-int8 was skipped: tensorrt is not installed",
        "at batch 8 has no baseline to be compared with.",
    ):
        assert said in words.replace("\u00a0", " ")


def test_identical_outputs_are_called_identical() -> None:
    assert "identical" in printed(console.drift_table((make.identical("export"),)))


def test_a_pass_and_a_failure_can_be_told_apart_by_their_words() -> None:
    for verdict in Verdict:
        line = printed(console.verdict_line(make.judgement(verdict=verdict)))
        assert line.strip().startswith(verdict.value.upper())


def test_markup_in_names_is_text() -> None:
    name = "[red]x[/red]"
    assert name in printed(console.latency_table((make.latency(name),)), width=100)


def test_long_names_are_folded_and_not_cut() -> None:
    name = "resnet50-" + "abcdefghij" * 8
    text = printed(console.drift_table((make.drift(name),)))
    assert "".join(line.split(" ")[0] for line in text.splitlines()[2:]) == name


def test_no_change_is_said() -> None:
    assert "stays as it is" in printed(console.changes_table(()))
