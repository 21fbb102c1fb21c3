"""`doctor --selftest`: a machine with a GPU in, what of the TensorRT path holds on it out.

Everything that development without a GPU cannot prove is proved here: that engines of every kind
of block answer like eager PyTorch in every precision, at the corners of their profiles, with and
without a CUDA graph; that an engine for another GPU is refused; and that our figures are
trtexec's. What could not be tried is said, and never counts as passed.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resdeploy.artifact import publish, scratch_folder
from resdeploy.contracts import Notify, Progress
from resdeploy.engines import BACKENDS, Backend
from resdeploy.engines.api import load_api
from resdeploy.engines.gpu import gpu_here, gpu_state
from resdeploy.engines.runner import EngineRunner
from resdeploy.engines.timing import timed_queries
from resdeploy.engines.trtexec import PROTOCOLS, line, summary_of
from resdeploy.errors import EngineError, ResdeployError
from resdeploy.measure import verify
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import resolve
from resdeploy.pipeline.engine import Images, trt
from resdeploy.pipeline.int8.graph import sqnr_db
from resdeploy.records import BatchProfile, EngineOptions, GpuFacts, SelfTest, Trial
from resdeploy.runtimes import EagerRunner

# One variant of each kind of block: small ones, with images of 64 pixels where they take any.
KINDS = (
    "resnet18", "resnet26", "seresnext26d_32x4d", "resnet18d", "seresnet18", "ecaresnet26t",
    "skresnet18", "resnest14d", "res2net50_26w_4s", "resnetv2_18", "resnetv2_50x1_bit",
    "resnetblur18", "resnet20",
)  # fmt: skip

_PROFILES = (BatchProfile(min=1, opt=1, max=4), BatchProfile(min=4, opt=8, max=16))
_CORNERS = (1, 4, 5, 16, 20)  # of both profiles, and one batch that is split

# Least signal to noise against eager PyTorch, dB, on noise and random weights. That of INT8 was
# measured on CPUs, where a misplaced pair has 9. The others are estimates from 24 and 11 bits: no
# GPU has shown yet what is usual.
_LEAST_DB = {"fp32": 80.0, "fp16": 35.0, "int8-fp16": 12.0}

# trtexec is another process on a GPU whose clocks move.
_TRTEXEC_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What trials are made with."""

    folder: Path
    backend: Backend
    version: str
    notify: Notify


def selftest(*, backend: str, notify: Notify, progress: Progress) -> SelfTest:
    """Every trial of a backend, on this machine.

    Raises:
        MissingExtraError, EngineError: the backend is not to be had here.
    """
    row = BACKENDS[backend]
    api, gpu = load_api(row), gpu_here()
    reason = _why_not(row, gpu)
    found: list[Trial] = []
    with scratch_folder() as folder:
        bench = _Bench(folder=folder, backend=row, version=api.__version__, notify=notify)
        for name, trial in progress(list(_trials(bench)), "trying", None):
            found.append(
                Trial(name=name, passed=None, detail=reason, seconds=0.0)
                if reason
                else _tried(name, trial)
            )
    return SelfTest(
        backend=backend,
        version=api.__version__,
        machine=machine_facts(),
        gpu=gpu,
        state=gpu_state(),
        trials=tuple(found),
    )


def _why_not(backend: Backend, gpu: GpuFacts | None) -> str:
    """Why nothing of a backend can be tried here; empty where all can."""
    if gpu is None:
        return "there is no GPU here"
    if not backend.runs_on(gpu.sm):
        return f"{backend.module} does not run on {gpu.name} (compute capability {gpu.sm})"
    return ""


def _trials(bench: _Bench) -> Iterator[tuple[str, Callable[[], str]]]:
    """The name of each, and what does it: a sentence is what it found, an error that it failed."""
    for name in KINDS:
        for precision in _LEAST_DB:
            yield f"{name} {precision}", functools.partial(_answers, bench, name, precision)
    yield "an engine for another GPU is refused", functools.partial(_refused, bench)
    yield "the same figures as trtexec", functools.partial(_like_trtexec, bench)


def _tried(name: str, trial: Callable[[], str]) -> Trial:
    start = time.perf_counter()
    try:
        detail, passed = trial(), True
    except _NotTriedError as reason:
        return Trial(name=name, passed=None, detail=str(reason), seconds=0.0)
    except ResdeployError as error:
        detail, passed = error.message, False
    seconds = time.perf_counter() - start
    return Trial(name=name, passed=passed, detail=detail, seconds=seconds)


class _NotTriedError(Exception):
    """A trial that cannot be made here."""


def _engine(bench: _Bench, name: str, precision: str) -> Path:
    int8 = precision.startswith("int8")
    made = trt(
        name,
        precision=precision,
        backend=bench.backend.name,
        engine=EngineOptions(profiles=_PROFILES),
        images=Images(data="synthetic:16") if int8 else Images(),
        output=bench.folder / f"{name}-{precision}.engine",
    )
    return made.artifact.path


def _answers(bench: _Bench, name: str, precision: str) -> str:
    """An engine against eager PyTorch at every corner, twice, so that graphs answer too.

    Raises:
        EngineError: it answers otherwise.
    """
    path = _engine(bench, name, precision)
    loaded = resolve(name, None)
    size, channels = loaded.preprocess.size, loaded.facts.in_channels
    worst = np.inf
    with (
        EngineRunner(path, bench.backend) as runner,
        EagerRunner(loaded.module, threads=machine_facts().cores) as eager,
    ):
        for batch in _CORNERS:
            images = verify.noise((batch, channels, size, size), seed=batch)
            expected = eager.run(images)
            for _ in range(2):
                worst = min(worst, sqnr_db(expected, runner.run(images)))
        notes = runner.loaded.notes
    if not worst >= _LEAST_DB[precision]:
        raise EngineError(f"{worst:.1f} dB from eager, {_LEAST_DB[precision]:g} are needed")
    graphs = "; ".join(notes) or "CUDA graphs at every batch"
    return f"{worst:.1f} dB from eager at worst; {graphs}"


def _refused(bench: _Bench) -> str:
    """A sidecar that names another GPU, beside a sound engine."""
    path = _engine(bench, KINDS[0], "fp16")
    with EngineRunner(path, bench.backend) as runner:
        manifest = runner.artifact.manifest
    assert manifest is not None
    assert manifest.engine is not None
    options = manifest.engine.options.model_copy(update={"compute_capabilities": ("7.5",)})
    gpu = manifest.engine.gpu
    other = None if gpu is None else gpu.model_copy(update={"name": "another", "sm": "7.5"})
    facts = manifest.engine.model_copy(update={"gpu": other, "options": options})
    changed = manifest.model_copy(update={"engine": facts})
    elsewhere = publish(path, bench.folder / "elsewhere.engine", changed).path
    try:
        with EngineRunner(elsewhere, bench.backend):
            pass
    except EngineError as error:
        return error.message
    raise EngineError("it was loaded")


def _like_trtexec(bench: _Bench) -> str:
    """Our median computation time beside that of the trtexec on the PATH.

    Raises:
        EngineError: they are farther apart than two runs may be.
    """
    program = shutil.which("trtexec")
    if program is None:
        raise _NotTriedError("there is no trtexec on the PATH")
    major = bench.version.partition(".")[0]  # trtexec runs engines of its own version alone
    if major not in PROTOCOLS:
        raise _NotTriedError(f"trtexec runs no engines of {bench.backend.name}")
    protocol = PROTOCOLS[major]
    path = _engine(bench, "resnet26", "fp16")
    with EngineRunner(path, bench.backend) as runner:
        queries = timed_queries(runner.loaded, 8, protocol)
        shape = runner.loaded.bound(8).images.shape
        command = line(path, protocol, runner.loaded.input, shape)
    ours = summary_of([query.compute_ms for query in queries]).median
    said = subprocess.run(
        [program, *command.split()[1:]], capture_output=True, text=True, check=False, timeout=300
    )
    found = re.search(r"GPU Compute Time:.*?median = ([0-9.]+) ms", said.stdout)
    if said.returncode != 0 or found is None:
        raise _NotTriedError(f"trtexec ended with {said.returncode} and gave no median")
    theirs = float(found[1])
    figures = f"{ours:.3f} ms, trtexec {theirs:.3f} ms ({command})"
    if abs(ours / theirs - 1) > _TRTEXEC_SHARE:
        raise EngineError(figures)
    return figures
