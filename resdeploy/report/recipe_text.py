"""A recipe as a run keeps it in, the TOML file that repeats the run out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_from_recipe(recipe: Mapping[str, Any]) -> str:
    """The recipe as TOML, key by key; a key whose value is None is left out.

    Source: https://toml.io/en/v1.0.0
    """
    lines = [f"{_key(key)} = {_block(value)}" for key, value in recipe.items() if value is not None]
    return "\n".join(lines) + "\n"


def _block(value: Any) -> str:
    """A value on the right of a top-level key; a list of tables has a line for each."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return "[\n" + "".join(f"  {_value(item)},\n" for item in value) + "]"
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        pairs = [f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return _string(str(value)) if not isinstance(value, int) else str(value)


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _string(key)


def _string(text: str) -> str:
    # A TOML basic string has JSON's escapes, but may not hold DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
