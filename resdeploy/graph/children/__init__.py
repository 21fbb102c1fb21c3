"""Programs that are run as `python -m resdeploy.graph.children.NAME`, and wait for a job.

The job comes on stdin once they have imported what they need. They end with code 0 and a graph
in the file that the job names, or with UNCHANGED and none.
"""

from __future__ import annotations

import resource
import sys

UNCHANGED = 64  # no code of Python's own, nor one of a shell's


def job_text(source: str, result: str, memory_bytes: int) -> str:
    """A job as it is sent."""
    return f"{source}\n{result}\n{memory_bytes}\n"


def job() -> tuple[str, str]:
    """Wait for the job: the paths of the graph and of the result.

    The process gets no more address space than the job allows; it ends where the parent does.
    """
    lines = sys.stdin.read().splitlines()
    if not lines:
        sys.exit(0)  # nothing is to be done
    source, result, memory = lines
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    return source, result
