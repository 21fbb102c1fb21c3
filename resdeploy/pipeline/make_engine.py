"""An ONNX file in, a checked TensorRT engine out.

As in `make`: a function writes one file, checked, and returns what its sidecar says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from resdeploy.artifact import Artifact, sha256_of_file
from resdeploy.contracts import Notify, Progress
from resdeploy.engines import ENGINE, Backend
from resdeploy.engines.compiler import CompilerChild
from resdeploy.engines.inspector import with_macs
from resdeploy.engines.precision import engine_checks
from resdeploy.errors import EngineError, GraphError
from resdeploy.graph import EMITTERS, cost, summary
from resdeploy.graph.files import read_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.validate import problems_of
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.pipeline.make import Checks, merged_checks
from resdeploy.records import (
    BatchProfile,
    Compiled,
    EngineFacts,
    EngineJob,
    EngineOptions,
    EngineProgress,
    GraphSummary,
    HistoryStep,
    Manifest,
)
from resdeploy.words import HardwareCompatibility

TIMEOUT_S = 3600.0  # against a compiler that hangs; nobody has measured the longest build

_TARGET = "tensorrt"  # whose rules Q/DQ pairs must follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Compile:
    """What is compiled, by whom and how.

    cache: path of a timing cache, of a backend that has one.
    """

    source: Artifact
    manifest: Manifest
    backend: Backend
    options: EngineOptions
    timeout_s: float = TIMEOUT_S
    cache: Path | None = None


def engine_file(work: Compile, path: Path, *, notify: Notify, progress: Progress) -> Manifest:
    """Compile an ONNX file, and see what came of it.

    The precision is that of the file; what the compiler made of it is checked.

    Raises:
        EngineError: the backend cannot do what is asked, or refused the file.
        GraphError: TensorRT would misread the file.
        ChildFailedError: the compiler crashed, or took longer than it may.
        VerificationError: the engine is not of the precision of its file.
    """
    refuse_options(work.backend, work.options)
    _refuse_refit(work)
    graph, model = _graph_of(work, notify)
    compiled = _compiled(work, path, progress)
    if compiled.problems:
        backend = f"{work.backend.module} {compiled.version}".rstrip()
        raise EngineError(
            f"{backend} cannot build {work.manifest.name}: {'; '.join(compiled.problems)}",
            hint=compiled.hint or _hint(compiled.problems),
        )
    size = path.stat().st_size
    profiles = len(work.options.profiles)
    stripped = work.options.strip_plan
    checks = engine_checks(graph.precision, graph, compiled, None if stripped else size, profiles)
    verify.require(checks, "the engine", "report this, with the ONNX file")
    for line in compiled.warnings:
        if not any(words in line for words in _HARMLESS):
            notify(f"{work.backend.module}: {line}")
    if compiled.layers is not None:
        layers = with_macs(compiled.layers, {node.name: node.macs for node in cost.nodes_of(model)})
        compiled = compiled.model_copy(update={"layers": layers})
    return _manifest(work, path, graph, compiled, checks)


def refuse_options(backend: Backend, options: EngineOptions) -> None:
    """Refuse what a backend does not have, before anything is made.

    Raises:
        EngineError: it does not have it.
    """
    for capability in options.compute_capabilities:
        if capability not in backend.capabilities:
            known = ", ".join(backend.capabilities)
            raise EngineError(
                f"{backend.name} does not compile for compute capability {capability}",
                hint=f"it does for {known}"
                if known
                else "it compiles for the GPU of the machine that it runs on, and no other",
            )
    lacking = [
        (options.hardware is not HardwareCompatibility.NONE, backend.hardware, "hardware"),
        (options.version_compatible, backend.version_compatible, "version"),
    ]
    for asked, able, what in lacking:
        if asked and not able:
            raise EngineError(
                f"{backend.name} has no {what} compatibility",
                hint="--backend tensorrt has; engines of rtx run on every GPU that they name",
            )
    if (options.refit or options.strip_plan) and not backend.refit:
        raise EngineError(
            f"{backend.name} cannot compile engines for --refit or --strip-plan without a GPU",
            hint="--backend tensorrt, on a machine with the GPU, can",
        )


def _refuse_refit(work: Compile) -> None:
    """Refuse engines whose weights could not be exchanged, or given back.

    Raises:
        EngineError: they could not.
    """
    if work.options.refit and work.manifest.precision.startswith("int8"):
        raise EngineError(
            f"{work.manifest.name} is INT8, and --refit would leave it the scales of its first "
            "weights, by which others are misread",
            hint="quantize the new weights, and compile them",
        )
    if work.options.strip_plan and work.manifest.data:
        raise EngineError(
            f"{work.source.path} has weights in files of their own: --strip-plan takes them from "
            "one ONNX file",
            hint="leave out --strip-plan",
        )


def _graph_of(work: Compile, notify: Notify) -> tuple[GraphSummary, ir.Model]:
    """The ONNX file and its facts, if TensorRT reads it as it is meant; what costs speed is told.

    Raises:
        GraphError: it does not.
    """
    model = read_model(work.source.path)
    facts = summary.summary_of(model)
    if facts.precision.startswith("int8"):
        checks = editor.rules_of(EMITTERS[_TARGET]).checks
        for problem in problems_of(model, [check for check in checks if not check.misread]):
            notify(f"{_TARGET}: {problem}")
        problems = problems_of(model, [check for check in checks if check.misread])
        if problems:
            raise GraphError(
                f"TensorRT would misread {work.manifest.name}: {'; '.join(problems)}",
                hint="quantize its float source again, with --target tensorrt",
            )
    return facts, model


def _compiled(work: Compile, path: Path, progress: Progress) -> Compiled:
    job = EngineJob(
        backend=work.backend.name,
        graph=str(work.source.path),
        plan=str(path),
        options=work.options,
        tf32=False,
        cache=None if work.cache is None else str(work.cache),
    )
    with CompilerChild(job, timeout_s=work.timeout_s) as child:
        found: list[Compiled] = []
        for _ in progress(_outer_steps(child.answers(), found), "compiling"):
            pass
    return found[0]


def _outer_steps(
    answers: Iterator[EngineProgress | Compiled], found: list[Compiled]
) -> Iterator[EngineProgress]:
    """The steps of phases that are part of no other; the answer goes into `found`."""
    for answer in answers:
        if isinstance(answer, Compiled):
            found.append(answer)
        elif not answer.parent:
            yield answer


# Warnings that say what happens anyway: scales that are float16 in the file, as the types of a
# strongly typed network must be, are used as float32 numbers. They are in the sidecar, not told.
_HARMLESS = ("Converting conv activation scales to fp32", "Converting conv weight scales to fp32")


# What is to be done where the compiler says so.
_HINTS = {
    "turing": "TensorRT-RTX computes in float16 alone on Turing (7.5): compile the float16 form",
    "same input types": "a node takes one type: cast the whole graph, without --keep",
    "out of memory": "allow a kernel less with --workspace-mib, or use a smaller --batch",
}


def _hint(problems: tuple[str, ...]) -> str:
    said = " ".join(problems).lower()
    known = [hint for words, hint in _HINTS.items() if words in said]
    return known[0] if known else "`resdeploy inspect` lists the operators of a graph"


def _manifest(
    work: Compile, path: Path, graph: GraphSummary, compiled: Compiled, checks: Checks
) -> Manifest:
    facts = EngineFacts(
        backend=work.backend.name,
        version=compiled.version,
        cuda=compiled.cuda,
        gpu=compiled.gpu,
        options=work.options,
        source_sha256=work.source.sha256,
        obtained=tuple(f"{check.name}: {check.detail}" for check in checks),
        warnings=compiled.warnings,
        layers=compiled.layers,
    )
    step = HistoryStep(
        step="compile",
        tools={**package_versions(["resdeploy"]), work.backend.module: compiled.version},
        source_sha256=work.source.sha256,
        nodes=graph.nodes,
    )
    profiles = work.options.profiles
    return work.manifest.model_copy(
        update={
            "format": ENGINE,
            "precision": graph.precision,
            "sha256": sha256_of_file(path),
            "size_bytes": path.stat().st_size,
            "data": _weights_beside(work, path) if work.options.strip_plan else {},
            "opset": None,
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "batch": BatchProfile(
                min=min(profile.min for profile in profiles),
                opt=profiles[0].opt,
                max=max(profile.max for profile in profiles),
            ),
            "engine": facts,
            "verification": merged_checks(work.manifest.verification, checks, "compile"),
            "history": (*work.manifest.history, step),
        }
    )


def _weights_beside(work: Compile, path: Path) -> dict[str, str]:
    """Put the ONNX file beside an engine without weights, called by its content."""
    name = f"weights-{work.source.sha256[:16]}.onnx"
    shutil.copyfile(work.source.path, path.with_name(name))
    return {name: work.source.sha256}
