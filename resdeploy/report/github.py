"""A RunResult in, GitHub's workflow commands out: annotations of a job, when they are printed.

Source: docs.github.com, "Workflow commands for GitHub Actions"; what is escaped is what
actions/toolkit escapes, packages/core/src/command.ts.
"""

from __future__ import annotations

from resdeploy.records import RunResult, Verdict
from resdeploy.report.format import sentence

_LEVELS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def annotations_from_result(result: RunResult) -> str:
    """A line for every finding that is no pass, and one for the verdict."""
    judgement = result.judgement
    lines = [
        _command(_LEVELS[finding.verdict], f"{result.name}: {finding.target}", finding.reason)
        for finding in judgement.findings
        if finding.counts and finding.verdict is not Verdict.PASS
    ]
    level = _LEVELS.get(judgement.verdict, "notice")
    title = f"{result.name}: {judgement.verdict.value.upper()}"
    return "\n".join([*lines, _command(level, title, sentence(judgement.reason))]) + "\n"


def _command(level: str, title: str, message: str) -> str:
    name = title.translate(_PROPERTY)
    return f"::{level} title={name}::{message.translate(_DATA)}"
