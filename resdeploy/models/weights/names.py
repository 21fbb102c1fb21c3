"""Names of weights: the keys of anybody's state_dict enter, the names they have here leave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

PREFIXES = (
    "module.", "model.", "backbone.", "_orig_mod.", "net.", "encoder.",
    "ema.", "ema_model.", "teacher.", "student.",
)  # fmt: skip
# The same layer, as other publishers call it; where ours is there too, theirs is another layer.
OLD_NAMES = {r"^(last_)?linear\.": "fc.", r"\.shortcut\.": ".downsample."}
# OpenMMLab's: only beside a `backbone.`, since timm has nets with a `head.fc` of their own.
OPENMMLAB_HEAD = "head.fc."
# Only training reads it, and checkpoints from before PyTorch 0.4.1 lack it.
BATCH_COUNTER = "num_batches_tracked"


def is_counter(key: str) -> bool:
    """Whether this is the number of batches that a BatchNorm has seen."""
    return key.rpartition(".")[2] == BATCH_COUNTER


def distinct_names(keys: Iterable[str]) -> dict[str, str]:
    """What each key is called here: its plain name, where all plain names differ.

    Else the keys themselves, without the prefixes that all of them have.
    """
    names = plain_names(keys)
    if not repeated(names.values()):
        return names
    columns = zip(*(_split(key)[0] for key in names), strict=False)
    common = takewhile(lambda column: len(set(column)) == 1, columns)
    length = sum(len(column[0]) for column in common)
    return {key: key[length:] for key in names}


def plain_names(keys: Iterable[str]) -> dict[str, str]:
    """Each key without prefixes, and with today's name of its layer; some may come out alike."""
    split = {key: _split(key) for key in keys}
    taken = {name for _, name in split.values()}
    openmmlab = any("backbone." in prefixes for prefixes, _ in split.values())
    names = {}
    for key, (prefixes, name) in split.items():
        plain = name
        for old, new in OLD_NAMES.items():
            plain = re.sub(old, new, plain)
        if openmmlab and "backbone." not in prefixes and name.startswith(OPENMMLAB_HEAD):
            plain = "fc." + name.removeprefix(OPENMMLAB_HEAD)
        names[key] = name if plain in taken else plain
    return names


def prefix_counts(keys: Iterable[str]) -> Counter[str]:
    """How many keys have each prefix, which may be none or several in a row."""
    return Counter("".join(_split(key)[0]) for key in keys)


def repeated(names: Iterable[str]) -> list[str]:
    """Those that are there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _split(key: str) -> tuple[tuple[str, ...], str]:
    """The prefixes of a key, and what follows them."""
    prefixes: list[str] = []
    while found := next((prefix for prefix in PREFIXES if key.startswith(prefix)), None):
        prefixes.append(found)
        key = key.removeprefix(found)
    return tuple(prefixes), key
