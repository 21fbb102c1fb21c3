"""Tables of rows: how every kind of thing that can be extended is listed.

A row is a frozen dataclass with a `name`. A row that stands for code names it as
"module:attribute" in `target`, so that listing the rows imports nothing heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from resdeploy.errors import MissingExtraError, UnknownNameError


class Named(Protocol):
    """Anything with a name: the least a row must have."""

    @property
    def name(self) -> str:
        """What the row is looked up by."""
        ...


RowT = TypeVar("RowT", bound=Named)


class Table(Generic[RowT]):
    """An ordered, immutable set of rows, looked up by name.

    Raises:
        ValueError: two rows have the same name.
    """

    def __init__(self, kind: str, rows: tuple[RowT, ...]) -> None:
        self.kind = kind
        self._rows: dict[str, RowT] = {}
        for row in rows:
            if row.name in self._rows:
                raise ValueError(f"two rows of the {kind} table are named {row.name!r}")
            self._rows[row.name] = row

    def __getitem__(self, name: str) -> RowT:
        """The row called `name`; UnknownNameError, with near names, where there is none."""
        if name not in self._rows:
            raise UnknownNameError(self.kind, name, self._rows)
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[RowT]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rows, in their order."""
        return tuple(self._rows)


def load_target(target: str, *, extra: str, why: str) -> Any:
    """What a row's "module:attribute" names.

    Raises:
        MissingExtraError: the module needs a package that is not installed; `extra` brings it.
    """
    module_name, attribute = target.split(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "resdeploy"):
            raise
        raise MissingExtraError(missing, extra, why) from error


def has_module(name: str) -> bool:
    """Whether a module can be imported; nothing is imported to find out.

    A folder without code, such as the types that `tensorrt-stubs` leaves, is none.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def lazy(package: str, public: dict[str, str], name: str) -> Any:
    """The public `name` of a package whose names are imported only when they are asked for."""
    if name not in public:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module_name, attribute = public[name].split(":")
    return getattr(importlib.import_module(module_name), attribute)
