"""What CI shows: Markdown, JUnit, and GitHub's annotations; none of them greener than the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.gate import judge_result
from resdeploy.records import Rule, RunResult, Verdict
from resdeploy.report import REPORTS, report_text
from resdeploy.report.github import annotations_from_result
from resdeploy.report.junit import junit_from_result
from resdeploy.report.markdown import markdown_from_result
from tests import factories as make
from tests.conftest import Cli

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))

PASSES = Rule(metric="drift.nonfinite", max=0)
FAILS = Rule(metric="drift.top1_agreement", min=0.9999, targets=("ort-int8",))
UNDECIDED = Rule(metric="bench.p50_vs_baseline", max=1.05, targets=("onnx-fp32",))
SKIPPED = Rule(metric="artifact.size_bytes", max=10**9)


def judged(*rules: Rule, **changed: Any) -> RunResult:
    """A run with the verdict that its own rules give it."""
    made = make.run_result(rules=rules, baseline=None, **changed)
    return made.model_copy(update={"judgement": judge_result(made, None)})


ALL = (PASSES, FAILS, UNDECIDED, SKIPPED)


def suite_of(result: RunResult) -> ET.Element:
    (suite,) = ET.fromstring(junit_from_result(result))
    return suite


def test_every_finding_is_a_case_and_the_counts_are_those_of_the_cases() -> None:
    result = judged(*ALL)
    suite = suite_of(result)
    cases = list(suite)
    assert len(cases) == len(result.judgement.findings) == int(suite.get("tests", ""))
    for name in ("failure", "error", "skipped"):
        found = [case for case in cases if case.find(name) is not None]
        attribute = {"failure": "failures", "error": "errors"}.get(name, name)
        assert len(found) == int(suite.get(attribute, "")) > 0, name
    by_kind = {
        Verdict.FAIL: "failure",
        Verdict.INCONCLUSIVE: "error",
    }
    for case, finding in zip(cases, result.judgement.findings, strict=True):
        assert case.get("classname", "").endswith(finding.target)
        assert case.get("name", "").startswith(finding.rule.metric)
        kinds = [child.tag for child in case]
        expected = "skipped" if not finding.counts else by_kind.get(finding.verdict)
        assert kinds == ([expected] if expected else [])


@pytest.mark.parametrize("rules", [ALL, (PASSES,), ()], ids=["all", "passed", "none"])
def test_it_is_what_the_schema_asks_for(rules: tuple[Rule, ...]) -> None:
    assert list(SCHEMA.iter_errors(junit_from_result(judged(*rules)))) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('tests="', 'tests="many'),
        ("<testcase name=", "<testcase title="),
        ("<failure ", "<failing "),
        ("<testsuite ", "<suite "),
    ],
)
def test_the_schema_refuses_what_is_not_junit(right: str, wrong: str) -> None:
    text = junit_from_result(judged(*ALL))
    assert right in text
    tag = right.strip("< =").partition(" ")[0]
    spoiled = text.replace(right, wrong).replace(f"</{tag}>", f"</{wrong.strip('< ')}>")
    with pytest.raises((xmlschema.XMLSchemaValidationError, ET.ParseError)):
        SCHEMA.validate(spoiled)


def test_a_gate_without_rules_is_red_and_never_an_empty_suite() -> None:
    suite = suite_of(judged())
    (case,) = suite
    assert case.find("error") is not None
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert annotations_from_result(judged()).startswith("::warning ")
    assert "INCONCLUSIVE" in markdown_from_result(judged())


@given(name=st.text(min_size=1, max_size=30))
@settings(max_examples=30)
def test_any_name_gives_a_file_that_can_be_read(name: str) -> None:
    text = junit_from_result(judged(*ALL, name=name))
    assert list(SCHEMA.iter_errors(text)) == []
    assert len(ET.fromstring(text)) == 1
    lines = annotations_from_result(judged(*ALL, name=name)).split("\n")
    assert all(line.startswith("::") for line in lines if line)
    heading = markdown_from_result(judged(*ALL, name=name)).splitlines()[0]
    assert heading.startswith("## ")


def test_annotations_are_escaped_as_github_asks() -> None:
    result = judged(FAILS, name="a:b,c%\nd")
    first, last = annotations_from_result(result).splitlines()
    assert first.startswith("::error title=a%3Ab%2Cc%25%0Ad%3A ort-int8::drift.top1_agreement")
    assert last.startswith("::error title=a%3Ab%2Cc%25%0Ad%3A FAIL::")


def test_what_passes_is_one_notice() -> None:
    (line,) = annotations_from_result(judged(PASSES)).splitlines()
    assert line.startswith("::notice title=resdigits".replace("resdigits", "resnet20-digits"))
    assert "::" in line[2:]


def test_markdown_holds_its_tables_together_whatever_names_say() -> None:
    hostile = "a|b `c` <script> *d*\ne"
    page = markdown_from_result(judged(*ALL, name=hostile))
    assert "<script>" not in page
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        widths = {len(line.replace("\\|", "").split("|")) for line in block}
        assert len(widths) == 1, block


@pytest.mark.parametrize("row", [row for row in REPORTS if not row.extra], ids=lambda row: row.name)
def test_the_command_writes_it_and_imports_nothing_heavy(
    row: Any, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "results.json"
    path.write_text(judged(*ALL).to_json())
    said = cli("report", path, "--format", row.name)
    assert said.code == 0, said.err
    written = tmp_path / f"report{row.suffix}"
    assert said.out.strip() == str(written)
    assert written.read_text() == report_text(row.name, judged(*ALL))
    code = (
        f"import sys; from resdeploy.cli.app import exit_code_of\n"
        f"exit_code_of(['report', {str(path)!r}, '--format', {row.name!r}])\n"
        "print(*[name for name in ('torch', 'onnx', 'matplotlib') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1].strip() == ""
