"""The first bytes of an engine in, the version that compiled it out; nothing is loaded.

Bytes 24 to 27 are major, minor, patch and build. NVIDIA says so of TensorRT (NVIDIA/TensorRT#3073),
and TensorRT-RTX 1.7.1.116 writes 01 07 01 74.
"""

from __future__ import annotations

from pathlib import Path

_MAGIC = slice(1, 4)
_VERSION = slice(24, 28)


def plan_version(path: Path) -> tuple[int, ...] | None:
    """The four numbers of the version that compiled a file; None where it is no engine."""
    with path.open("rb") as file:
        head = file.read(_VERSION.stop)
    if len(head) < _VERSION.stop or head[_MAGIC] != b"trt":
        return None
    return tuple(head[_VERSION])
