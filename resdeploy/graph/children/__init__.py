"""Programs that are run as `python -m resdeploy.graph.children.NAME SOURCE RESULT BYTES`."""

from __future__ import annotations

import resource


def limit_memory(size: str) -> None:
    """Let this process have no more than so many bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (int(size), int(size)))
