"""The report in a browser: whole by itself, legible in light and dark, on a phone and printed."""

from __future__ import annotations

import base64
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy import run
from resdeploy.records import ClassHits, Flip, Load, RunResult, TargetStatus, Verdict
from resdeploy.report.html import page_from_result
from tests import factories as make
from tests.browser.conftest import Opened
from tests.conftest import ROOT

# Contrast by WCAG 2.2, 1.4.3; large text (24 px, or 18.66 px in bold) may have 3.
CONTRAST = """
() => {
  const curve = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const channel = v => curve(v / 255);
  const parsed = text => text.match(/[0-9.]+/g).map(Number);
  const over = (top, below) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => top[i] * a + below[i] * (1 - a));
  };
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour.length < 4 || colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const inSvg = element instanceof SVGElement;
    const colour = over(parsed(inSvg ? style.fill : style.color), behind(element));
    const pair = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
    const least = !inSvg && (size >= 24 || (bold && size >= 18.66)) ? 3 : 4.5;
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < least) found.push(`${ratio.toFixed(2)} ${text.slice(0, 40)}`);
  }
  return found;
}
"""

HEADINGS = "() => [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
NAMELESS = """
() => [...document.querySelectorAll('img, svg:not([aria-hidden=true])')]
  .filter(each => !(each.getAttribute('alt') || each.getAttribute('aria-label'))).length
"""
BARE_TABLES = """
() => [...document.querySelectorAll('table')].filter(table =>
  !table.querySelector('caption') ||
  [...table.querySelectorAll('th')].some(cell => !cell.getAttribute('scope'))).length
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
SHOWN = """
() => [...document.body.querySelectorAll('*')].filter(each => each.getClientRects().length).length
"""
FOCUS = """
() => {
  const style = getComputedStyle(document.activeElement);
  return document.activeElement === document.body ? null :
    [document.activeElement.getAttribute('aria-label') || document.activeElement.tagName,
     style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0];
}
"""


def picture(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        return base64.b64encode(file.getvalue()).decode("ascii")


def everything() -> RunResult:
    """A failed run with a skipped target, many flips, many classes, long names, a busy machine."""
    flips = tuple(
        Flip(
            id=f"a-folder-with-a-long-name/and-another/image-{index:05}.jpeg",
            reference=index % 10,
            candidate=(index + 1) % 10,
            label=index % 10 if index % 3 else (index + 1) % 10,
            reference_margin=0.123 * index,
            candidate_margin=0.01,
        )
        for index in range(120)
    )
    hits = tuple(
        ClassHits(label=index, images=40, reference=38, candidate=38 - index + 4)
        for index in range(10)
    )
    bad = make.drift(
        "ort-int8", flipped=flips, flips=120, top1_agreement=0.7, per_class=hits,
        top1_lower_95=0.6, top1_upper_95=0.8,
    )  # fmt: skip
    busy = Load(cores=(0, 1), others=0.4, steal=0.0, mhz=None, busy=("other processes used 40%",))
    result = make.run_result()
    drift = tuple(bad if row.name == "ort-int8" else row for row in result.drift)
    bench = tuple(row.model_copy(update={"load": busy}) for row in result.bench)
    judgement = result.judgement.model_copy(update={"verdict": Verdict.FAIL})
    pictures = {flip.id: picture(index) for index, flip in enumerate(flips[:48])}
    changed = {"drift": drift, "bench": bench, "judgement": judgement, "pictures": pictures}
    return result.model_copy(update=changed)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of the quickstart, and one with everything that a page may hold."""
    folder = tmp_path_factory.mktemp("pages")
    finished = run(ROOT / "recipes" / "quickstart.toml", out=folder / "quickstart")
    assert finished.report is not None
    full = folder / "everything.html"
    full.write_text(page_from_result(everything()), encoding="utf-8")
    assert any(target.status is TargetStatus.SKIPPED for target in everything().targets)
    return {"quickstart": finished.report, "everything": full}


BOTH = pytest.mark.parametrize("name", ["quickstart", "everything"])


@BOTH
def test_it_is_whole_by_itself(name: str, pages: dict[str, Path], opened: Opened) -> None:
    opened.open(pages[name])
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert pages[name].stat().st_size < 2_000_000
    broken = "() => [...document.images].filter(image => !image.naturalWidth).length"
    assert opened.run(broken) == 0
    assert (opened.run("() => document.images.length") > 0) is (name == "everything")


@BOTH
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    name: str, scheme: str, pages: dict[str, Path], opened: Opened
) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    opened.open(pages[name])
    assert opened.run(CONTRAST) == []


@BOTH
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_sticks_out_at_any_width(
    name: str, width: int, pages: dict[str, Path], opened: Opened
) -> None:
    opened.page.set_viewport_size({"width": width, "height": 800})
    opened.open(pages[name])
    assert opened.run(OVERFLOW) <= 0


@BOTH
def test_a_screen_reader_finds_its_way(name: str, pages: dict[str, Path], opened: Opened) -> None:
    opened.open(pages[name])
    levels = opened.run(HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert opened.run(NAMELESS) == 0
    assert opened.run(BARE_TABLES) == 0
    assert opened.run("() => document.documentElement.lang") == "en"


@BOTH
def test_the_keyboard_reaches_every_table_and_shows_where_it_is(
    name: str, pages: dict[str, Path], opened: Opened
) -> None:
    opened.open(pages[name])
    tables = opened.run("() => document.querySelectorAll('table').length")
    seen: dict[str, Any] = {}
    for _ in range(tables + 10):
        opened.page.keyboard.press("Tab")
        found = opened.run(FOCUS)
        if found is None:
            break
        seen[found[0]] = found[1]
    assert len(seen) >= tables
    assert all(seen.values()), [where for where, shown in seen.items() if not shown]


@BOTH
def test_paper_has_everything_that_the_screen_has(
    name: str, pages: dict[str, Path], opened: Opened
) -> None:
    opened.open(pages[name])
    shown = opened.run(SHOWN)
    opened.page.emulate_media(media="print")
    assert opened.run(SHOWN) == shown > 100
    assert opened.run(CONTRAST) == []
