"""An engine and this machine in; nothing out, or the reason why the one does not run on the other.

An engine is executable code: whoever loads one runs it. So it is compared with what its sidecar
says before TensorRT sees a byte of it. TensorRT's own check is none: it takes altered files
(docs.nvidia.com/deeplearning/tensorrt/11.4.0/reference/security.html).
"""

from __future__ import annotations

from pathlib import Path

from resdeploy.artifact import Artifact
from resdeploy.engines import Backend, is_among, numbers_of
from resdeploy.engines.api import version_of
from resdeploy.engines.header import plan_version
from resdeploy.errors import EngineError
from resdeploy.records import USUAL_CAPABILITIES, EngineFacts, GpuFacts, Manifest
from resdeploy.words import HardwareCompatibility


def require_runnable(
    artifact: Artifact, row: Backend, version: str, gpu: GpuFacts | None, *, trusted: bool
) -> None:
    """Refuse an engine that is not for this machine, or that nobody vouches for.

    artifact: its bytes are those of its sidecar already (`open_artifact`).
    version: of the backend here. gpu: of this machine. trusted: the user vouches for a file
    without a sidecar.

    Raises:
        EngineError: it is not to be loaded here.
    """
    path, manifest = artifact.path, artifact.manifest
    facts = None if manifest is None else manifest.engine
    if facts is None and not trusted:
        raise EngineError(
            f"{path} has no sidecar of an engine, and an engine is code that runs on this machine",
            hint="compile it with `resdeploy trt`, or say --trust if you know where it comes from",
        )
    if gpu is None:
        built = "" if facts is None else f"; it was built for {_built_for(facts)}"
        raise EngineError(
            f"{path} needs an NVIDIA GPU, and there is none here that PyTorch can use{built}",
            hint="run it on a machine with one; `resdeploy inspect` shows it without",
        )
    _require_version(path, row, version, manifest)
    if not row.runs_on(gpu.sm):
        raise EngineError(
            f"{row.module} does not run on {gpu.name} (compute capability {gpu.sm})",
            hint=f"it does on {', '.join(row.capabilities)} and later; here, build an engine with "
            "`resdeploy trt` and another --backend",
        )
    if facts is not None:
        _require_gpu(path, facts, gpu, manifest)


def _require_version(path: Path, row: Backend, version: str, manifest: Manifest | None) -> None:
    """The version in the file's header against the one that is installed."""
    found = plan_version(path)
    if found is None:
        raise EngineError(f"{path} does not begin like an engine", hint=_again(path, manifest))
    facts = None if manifest is None else manifest.engine
    here = version_of(version)
    lasting = facts is not None and facts.options.version_compatible
    if lasting and here >= found:  # made for later versions, too
        return
    if here != found[: len(here)]:
        built = ".".join(map(str, found))
        raise EngineError(
            f"{path} was built with {row.module} {built}, and this is {version}: an engine runs "
            "with the version that built it alone",
            hint=_again(path, manifest),
        )


def _require_gpu(path: Path, facts: EngineFacts, gpu: GpuFacts, manifest: Manifest | None) -> None:
    """The GPU that it was built for against the one that is here."""
    if facts.gpu is None:
        able = facts.options.compute_capabilities
        fits = gpu.sm in able if able else is_among(gpu.sm, USUAL_CAPABILITIES)
    elif facts.options.hardware is HardwareCompatibility.AMPERE_PLUS:
        fits = numbers_of(gpu.sm) >= (8, 0)
    elif facts.options.hardware is HardwareCompatibility.SAME:
        fits = gpu.sm == facts.gpu.sm
    else:
        fits = (gpu.sm, gpu.name) == (facts.gpu.sm, facts.gpu.name)
    if not fits:
        raise EngineError(
            f"{path} was built for {_built_for(facts)}, and this is {gpu.name} "
            f"(compute capability {gpu.sm})",
            hint=_again(path, manifest),
        )


def _built_for(facts: EngineFacts) -> str:
    if facts.gpu is not None:
        return f"{facts.gpu.name} (compute capability {facts.gpu.sm})"
    able = facts.options.compute_capabilities
    return f"compute capability {', '.join(able or (*USUAL_CAPABILITIES, 'later ones'))}"


def _again(path: Path, manifest: Manifest | None) -> str:
    """The command that builds the engine here."""
    if manifest is None or manifest.engine is None:
        return "build it here with `resdeploy trt`"
    facts, model = manifest.engine, manifest.model
    source = "MODEL" if model is None else f"{model.reference} --weights {model.weights}"
    kind = "--int8 --data DATA" if manifest.precision.startswith("int8") else "--fp16"
    kind = "" if manifest.precision == "fp32" else f" {kind}"
    return f"build it here: resdeploy trt {source}{kind} --backend {facts.backend} -o {path}"
