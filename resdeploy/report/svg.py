"""A drawing as a file in, the same drawing as part of a page out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FONT = re.compile(r"font-family:[^;]*;?\s*")


def inline_svg(svg: str, *, prefix: str, label: str, inks: Mapping[str, str]) -> str:
    """The `<svg>` element of our own drawing, ready to stand in HTML.

    Ids get `prefix`, so that two drawings in a page do not refer to each other's parts; the
    font is the page's; a colour of `inks` becomes the CSS variable `--ink-<name>`, so that it
    can follow light and dark; `label` is read out in place of the drawing.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    names = {colour: name for name, colour in inks.items()}
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _attribute(_local(key), value, prefix, names)
            for key, value in element.attrib.items()
        }
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _local(name: str) -> str:
    """A tag or attribute without its namespace, as HTML has it."""
    return name.rpartition("}")[2]


def _attribute(key: str, value: str, prefix: str, names: Mapping[str, str]) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key == "href":
        return value.replace("#", f"#{prefix}-", 1)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{prefix}-", 1)
    if key == "style":
        return _COLOUR.sub(lambda found: _ink(found[0], names), _FONT.sub("", value))
    return value


def _ink(colour: str, names: Mapping[str, str]) -> str:
    return f"var(--ink-{names[colour]}, {colour})" if colour in names else colour
