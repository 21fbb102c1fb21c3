"""Tables of rows: no name twice, near names for unknown ones, and targets that exist."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

import resdeploy
from resdeploy.engines import BACKENDS
from resdeploy.errors import MissingExtraError, UnknownNameError
from resdeploy.formats import FORMATS
from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq.editor import Rules
from resdeploy.quantization import METHODS
from resdeploy.report import REPORTS
from resdeploy.runtimes import RUNTIMES
from resdeploy.table import Table, load_target


@dataclass(frozen=True)
class Row:
    name: str


TABLE = Table("fruit", (Row("apple"), Row("pear"), Row("peach")))
TABLES: tuple[Table[Any], ...] = (FORMATS, RUNTIMES, EMITTERS, METHODS, REPORTS, BACKENDS)

# Fields of rows that name code as "module:attribute".
TARGETS = ("target", "rules")


def test_a_name_twice_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="two rows of the fruit table are named 'apple'"):
        Table("fruit", (Row("apple"), Row("pear"), Row("apple")))


def test_rows_are_found_by_name_in_their_order() -> None:
    assert TABLE["pear"] == Row("pear")
    assert TABLE.names == ("apple", "pear", "peach")
    assert [row.name for row in TABLE] == ["apple", "pear", "peach"]
    assert len(TABLE) == 3
    assert "pear" in TABLE
    assert "plum" not in TABLE
    assert Row("pear") not in TABLE


def test_an_unknown_name_gives_near_ones_or_all() -> None:
    with pytest.raises(UnknownNameError, match="unknown fruit 'paer'") as raised:
        TABLE["paer"]
    assert raised.value.hint.startswith("did you mean pea")
    with pytest.raises(UnknownNameError) as raised:
        TABLE["xyz"]
    assert raised.value.hint == "known: apple, pear, peach"


TARGET_ROWS = [
    pytest.param(getattr(row, field.name), id=f"{table.kind}-{row.name}-{field.name}")
    for table in TABLES
    for row in table
    for field in fields(row)
    if field.name in TARGETS
]


@pytest.mark.parametrize("target", TARGET_ROWS)
def test_every_row_names_code_that_is_there(target: str) -> None:
    found = load_target(target, extra="cpu", why="a test")
    assert isinstance(found, Rules) or callable(found)


def test_every_table_has_rows_with_targets() -> None:
    assert all(len(table) for table in TABLES)
    assert len(TARGET_ROWS) >= len(TABLES)


def test_what_a_target_needs_and_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import package_nobody_has.part")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"runner needs .*'package_nobody_has'") as error:
        load_target("needs_more:x", extra="gpu", why="the gpu runner")
    assert error.value.hint == "pip install 'resdeploy[gpu]'"
    with pytest.raises(ModuleNotFoundError):  # a mistake of ours is not a missing extra
        load_target("resdeploy.no_such_room:x", extra="gpu", why="the gpu runner")


DOORS = [
    name
    for name in ("resdeploy", *(f"resdeploy.{path.parent.name}" for path in sorted(
        Path(resdeploy.__file__).parent.glob("*/__init__.py"))))
    if hasattr(importlib.import_module(name), "__all__")
]  # fmt: skip


def test_what_a_door_offers_is_what_it_gives() -> None:
    """A submodule of the same name must not hide a public name, whoever is imported first."""
    code = """
import importlib, sys
from types import ModuleType
for name in sys.argv[1:]:
    door = importlib.import_module(name)
    for public in door.__all__:
        first, second = getattr(door, public), getattr(door, public)
        assert first is second, f"{name}.{public} changes when it is imported"
        rows = getattr(door, "_PUBLIC", {})
        if public in rows:
            assert not isinstance(first, ModuleType), f"{name}.{public} is a module"
    try:
        door.no_such_name
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError(name)
print(len(sys.argv) - 1)
"""
    said = subprocess.run(
        [sys.executable, "-c", code, *DOORS], capture_output=True, text=True, check=False
    )
    assert said.stdout.strip() == str(len(DOORS)), said.stderr
