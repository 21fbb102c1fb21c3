"""The compiler's process: `python -m resdeploy.engines.child`.

A job comes as one line of JSON on stdin. Progress and, last, the answer go to stdout, a line of
JSON each. The end of stdin cancels the build: the parent has closed it, or is no more.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TextIO

from resdeploy.artifact import replacing
from resdeploy.engines import BACKENDS
from resdeploy.engines.api import load_api
from resdeploy.engines.build import BuildError, built
from resdeploy.engines.gpu import cuda_here, gpu_here
from resdeploy.engines.log import logger_of
from resdeploy.errors import ResdeployError
from resdeploy.records import Compiled, EngineJob, Record


def main() -> None:
    """Read the job, build, answer."""
    say = _Speaker()
    job = EngineJob.model_validate_json(sys.stdin.readline())
    cancelled = threading.Event()
    threading.Thread(target=_watch, args=(sys.stdin, cancelled), daemon=True).start()
    say.line(_compiled(job, cancelled, say))


def _compiled(job: EngineJob, cancelled: threading.Event, say: _Speaker) -> Compiled:
    row = BACKENDS[job.backend]
    try:
        api = load_api(row)
    except ResdeployError as error:
        return Compiled(version="", problems=(error.message,), hint=error.hint)
    gpu = gpu_here()
    about = Compiled(version=api.__version__, cuda=cuda_here(), gpu=gpu if row.needs_gpu else None)
    _, heard = logger_of(api)
    try:
        made = built(
            api, row, job, has_gpu=gpu is not None, cancelled=cancelled.is_set, tell=say.line
        )
    except BuildError as error:
        return about.model_copy(update={"problems": error.problems, "warnings": heard.warnings()})
    Path(job.plan).write_bytes(made.plan)
    if job.cache is not None and made.cache is not None:
        with replacing(Path(job.cache)) as part:  # another build may read it now
            part.write_bytes(made.cache)
    found = {
        "warnings": heard.warnings(),
        "inputs": made.inputs,
        "outputs": made.outputs,
        "types": made.types,
        "layers": made.layers,
    }
    return about.model_copy(update=found)


def _watch(stdin: TextIO, cancelled: threading.Event) -> None:
    stdin.read()
    cancelled.set()


class _Speaker:
    """The stdout that the parent reads; whatever a library prints goes to stderr instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def line(self, record: Record) -> None:
        """Say a record in one line."""
        self._out.write(record.model_dump_json() + "\n")
        self._out.flush()


if __name__ == "__main__":
    main()
