"""Guards of the structure: who may import whom, how long a file may be, what is public."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "resdeploy"
ROOMS = (
    "data", "engines", "formats", "gate", "graph", "measure", "models", "quantization", "report",
    "runtimes",
)  # fmt: skip
FOUNDATIONS = ("artifact", "contracts", "errors", "records", "table", "words")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The first word behind `resdeploy.` of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module.startswith("resdeploy."):
                yield module.split(".")[1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_itself_and_the_foundations_only(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        assert set(imported(path)) <= {room, *FOUNDATIONS}, path


def test_the_foundations_know_no_room() -> None:
    for name in FOUNDATIONS:
        place = PACKAGE / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            assert set(imported(path)) <= set(FOUNDATIONS), path


def test_no_file_is_longer_than_400_lines() -> None:
    assert len(FILES) > 50
    long = {str(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: lines for path, lines in long.items() if lines > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)


def test_the_public_names_are_there_and_documented() -> None:
    package = importlib.import_module("resdeploy")
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
