"""Programs that are run as `python -m resdeploy.graph.children.NAME SOURCE RESULT BYTES`.

They end with code 0 and a graph in RESULT, or with UNCHANGED and none.
"""

from __future__ import annotations

import resource

UNCHANGED = 64  # no code of Python's own, nor one of a shell's


def limit_memory(size: str) -> None:
    """Let this process have no more than so many bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (int(size), int(size)))
