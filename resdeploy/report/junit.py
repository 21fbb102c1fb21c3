"""A RunResult in, a JUnit file out, which CI systems show as tests.

Each rule on each target is a test case. A broken rule is a failure; one that could not be decided
is an error, since it is no pass; one that was applied to a skipped target is skipped.

Source: the schema of Jenkins' xUnit plugin, junit-10.xsd.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from resdeploy.records import Finding, RunResult, Verdict

# What of it XML 1.0 may hold; everything else is written as Python writes it.
_ALLOWED = "\t\n\r"


def junit_from_result(result: RunResult) -> str:
    """One suite, with a case for every finding."""
    findings = result.judgement.findings
    counts = {
        "tests": len(findings),
        "failures": sum(_kind(finding) == "failure" for finding in findings),
        "errors": sum(_kind(finding) == "error" for finding in findings),
        "skipped": sum(_kind(finding) == "skipped" for finding in findings),
    }
    seconds = f"{sum(step.seconds for step in result.steps):.3f}"
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        {"name": _safe(result.name), "time": seconds}
        | {name: str(count) for name, count in counts.items()},
    )
    for finding in findings:
        suite.append(_case(finding, result.name))
    if not findings:  # a gate without rules proves nothing, and an empty suite would be green
        suite.append(_undecided(result))
        suite.set("tests", "1")
        suite.set("errors", "1")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _kind(finding: Finding) -> str:
    """The element that a case has for its outcome; empty for one that passed."""
    if not finding.counts:
        return "skipped"
    kinds = {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "error", Verdict.PASS: ""}
    return kinds[finding.verdict]


def _case(finding: Finding, run: str) -> ET.Element:
    batch = "" if finding.batch is None else f", batch {finding.batch}"
    name = f"{finding.rule.metric}{batch}"
    classname = f"{run}.{finding.target}"
    case = ET.Element("testcase", {"name": _safe(name), "classname": _safe(classname), "time": "0"})
    kind, reason = _kind(finding), _safe(finding.reason)
    if kind == "skipped":
        ET.SubElement(case, kind, {"message": reason})
    elif kind:
        ET.SubElement(case, kind, {"message": reason, "type": finding.verdict.value}).text = reason
    return case


def _undecided(result: RunResult) -> ET.Element:
    case = ET.Element("testcase", {"name": "gate", "classname": _safe(result.name), "time": "0"})
    reason = _safe(result.judgement.reason)
    ET.SubElement(case, "error", {"message": reason, "type": "inconclusive"}).text = reason
    return case


def _safe(text: str) -> str:
    """Without characters that no XML file may hold."""
    return "".join(
        char
        if char in _ALLOWED or (char >= " " and char not in "\ufffe\uffff" and not _is_half(char))
        else char.encode("unicode_escape").decode()
        for char in text
    )


def _is_half(char: str) -> bool:
    """Whether it is a half of a surrogate pair, which stands for no character."""
    return "\ud800" <= char <= "\udfff"
