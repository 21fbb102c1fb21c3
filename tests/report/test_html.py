"""The page: whole, escaped, self-contained, the same for the same run."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from typing import Any

import pytest

from resdeploy.errors import UnknownNameError
from resdeploy.gate import judge_result
from resdeploy.records import Flip, RunResult, TargetStatus
from resdeploy.report import REPORTS, report_text
from tests import factories as make

VOID = {"meta", "link", "br", "wbr"}
HOSTILE = '<script>alert("x")</script> & $x^2$'


class Page(HTMLParser):
    """What a page is made of, and whether every element that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


def judged(**changed: Any) -> RunResult:
    result = make.run_result(**changed)
    return result.model_copy(update={"judgement": judge_result(result, None)})


def page_of(**changed: Any) -> Page:
    return Page(report_text("html", judged(**changed)))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of()


def test_the_page_says_the_verdict_first_and_then_what_it_rests_on(page: Page) -> None:
    assert page.open == []
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [title for level, title in page.headings if level == 2] == [
        "What was tested",
        "Targets",
        "Gate",
        "How fast, how faithful",
        "Drift",
        "Latency",
        "Steps",
        "Provenance",
    ]
    said = "2 of 8 checks could not decide: bench.p50_vs_baseline of ort-int8 at batch 1"
    assert 0 < page.words.index(said) < page.words.index("What was tested")


def test_ids_are_unique_and_every_reference_leads_to_one(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for key in ("href", "aria-labelledby", "clip-path"):
            value = attrs.get(key) or ""
            if key != "href" or value.startswith("#"):
                target = value.removeprefix("url(").removesuffix(")").lstrip("#")
                assert not target or target in ids


def test_the_page_needs_nothing_but_itself() -> None:
    text = report_text("html", judged())
    assert "http" not in text.replace("http-equiv", "")
    assert len(text) < 500_000
    page = Page(text)
    assert page.all("script", "iframe", "img", "object") == []
    for attrs in page.all("link", "use", "a"):
        assert (attrs["href"] or "").startswith(("data:", "#"))
    assert not re.search(r"@import|url\((?!#)", text)


def test_tables_and_drawings_can_be_heard(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    drawings = [attrs for attrs in page.all("svg") if attrs.get("aria-hidden") != "true"]
    assert len(drawings) == 4
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert len(page.all("figcaption")) == 4


def test_equal_runs_give_equal_bytes() -> None:
    assert report_text("html", judged()) == report_text("html", judged())


def test_hostile_names_are_shown_and_never_obeyed() -> None:
    page = page_of(
        name=HOSTILE,
        targets=(make.target(HOSTILE),),
        drift=(make.drift(HOSTILE, flipped=(Flip(id=HOSTILE, reference=1, candidate=2),)),),
        bench=(make.latency(HOSTILE, note=HOSTILE),),
        model=make.model(weights=HOSTILE),
        machine=make.machine(cpu=HOSTILE, versions={HOSTILE: HOSTILE}),
        rules=(),
        recipe={HOSTILE: HOSTILE},
    )
    assert page.all("script") == []
    assert HOSTILE in page.words
    assert page.words.count("$x^2$") > 5


def test_the_flipped_images_are_listed_up_to_twenty() -> None:
    flipped = tuple(Flip(id=f"image-{n}", reference=n % 10, candidate=1) for n in range(33))
    page = page_of(drift=(make.drift(flips=33, flipped=flipped),))
    assert "the first 20 of them; 13 more" in page.words
    assert "image-19" in page.words
    assert "image-20" not in page.words


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bench": ()}, "Nothing was timed."),
        ({"drift": ()}, "Nothing was compared with the reference."),
        ({"rules": ()}, "No rule was applied."),
        ({"targets": (), "rules": ()}, "No rule was applied."),
        ({"model": make.model(trained=False)}, "The model is not trained"),
        ({"evaluation": make.data(synthetic=True)}, "The images are synthetic"),
        ({}, "trt-int8 was skipped: tensorrt is not installed."),
        (
            {"layer_gaps": {"onnx-fp32": "its names do not say"}},
            "The layers of onnx-fp32 were not compared: its names do not say.",
        ),
        (
            {"targets": (make.target(status=TargetStatus.NOT_TIMED, reason="2 flips"),)},
            "ort-int8 was not timed: 2 flips.",
        ),
        ({"calibration": None}, "Evaluation data"),
        (
            {"drift": (make.drift(nonfinite=4, sqnr_db=None, top1_agreement=None),)},
            "4 outputs of ort-int8 are NaN or infinite",
        ),
    ],
)
def test_what_is_missing_is_said(changed: dict[str, Any], said: str) -> None:
    assert said in page_of(rules=changed.pop("rules", ()), **changed).words


def test_the_recipe_on_the_page_is_the_recipe_of_the_run() -> None:
    text = report_text("html", judged())
    (shown,) = re.findall(r'aria-label="Recipe"><code>(.*?)</code>', text, re.DOTALL)
    assert tomllib.loads(shown.replace("&#34;", '"')) == make.RECIPE


@pytest.mark.parametrize("row", REPORTS, ids=lambda row: row.name)
def test_every_report_of_the_table_can_be_made(row: Any) -> None:
    assert report_text(row.name, judged())


def test_an_unknown_report_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        report_text("htm", make.run_result())
    assert "html" in caught.value.hint


MISSING = """
import sys
sys.modules[{package!r}] = None
from resdeploy.errors import MissingExtraError
from resdeploy.report import report_text
try:
    report_text("html", None)
except MissingExtraError as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_its_extra(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(package=package)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert repr(package) in done.stdout
    assert "resdeploy[report]" in done.stdout


def test_gate_and_console_leave_the_heavy_packages_alone() -> None:
    code = (
        "import sys, resdeploy.gate, resdeploy.report.console\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'numpy', 'scipy', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
