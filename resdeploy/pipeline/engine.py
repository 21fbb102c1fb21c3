"""`trt`: a model or an ONNX file in, a TensorRT engine out, with everything that comes between.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resdeploy.artifact import Artifact, make_folder, publish, replacing, scratch_folder, user_cache
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.engines import BACKENDS, SUFFIX, Backend
from resdeploy.engines.gpu import gpu_here
from resdeploy.errors import MissingExtraError, UnknownNameError, UsageError
from resdeploy.measure.machine import package_versions
from resdeploy.models.reference import AS_NAMED
from resdeploy.pipeline.make_engine import TIMEOUT_S, Compile, engine_file, refuse_options
from resdeploy.pipeline.opened import opened_onnx
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.pipeline.produce import cast, export, file_name, is_file, output_path
from resdeploy.pipeline.quantize import quantize
from resdeploy.records import EngineOptions, Manifest, ModelOptions, QuantizeOptions
from resdeploy.words import OnBroken

_DEFAULT_INPUT = InputChoice()
_DEFAULT_HOW = QuantizeOptions()
_DEFAULT_ENGINE = EngineOptions()

# What is done to an ONNX file of the one precision to have the other.
_STEPS = {
    ("fp32", "fp16"): ("cast",),
    ("fp32", "int8"): ("quantize",),
    ("fp32", "int8-fp16"): ("quantize", "cast"),
    ("int8", "int8-fp16"): ("cast",),
}
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The calibration images of an INT8 engine, or tables made of them; see `quantize`."""

    data: str | None = None
    tables: Sequence[Path] = ()
    samples: int | None = None
    on_broken: OnBroken = OnBroken.STOP

    @property
    def are_given(self) -> bool:
        """Whether there are any."""
        return self.data is not None or bool(self.tables)


_NO_IMAGES = Images()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine, and the calibration table beside it; None of an engine without calibration."""

    artifact: Artifact
    table: Path | None


def trt(
    model: str,
    *,
    precision: str | None = None,
    backend: str = "tensorrt",
    engine: EngineOptions = _DEFAULT_ENGINE,
    images: Images = _NO_IMAGES,
    how: QuantizeOptions = _DEFAULT_HOW,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    choice: InputChoice = _DEFAULT_INPUT,
    timeout_s: float = TIMEOUT_S,
    output: Path | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Engine:
    """Compile a model, or an ONNX file, to a TensorRT engine with its sidecar.

    precision: of weights and arithmetic; "int8" leaves the rest in float32, "int8-fp16" in
        float16. Without it, that of the ONNX file, and "fp32" of a model.
    images: to calibrate on, for INT8.
    output: `<model>-<precision>.engine` by default; a calibration table goes beside it.

    Raises:
        UnknownNameError: no such model, backend or precision.
        UsageError: an option makes no sense for the model or the precision.
        MissingExtraError: the backend is not installed.
        EngineError: the backend cannot do what is asked, or refuses the graph.
        VerificationError: a step on the way answers otherwise, or the engine is not of the
            precision that was asked for; nothing is written.
        OutputError: `output` cannot be written.
    """
    row = BACKENDS[backend]
    _require_backend(row)
    refuse_options(row, engine)
    given = opened_onnx(Path(model), choice, PRECISIONS)[1].precision if is_file(model) else "fp32"
    steps = _steps(model, given, precision or given)
    _require_images(steps, images)
    name = f"{file_name(model)}-{precision}" if precision else file_name(model)
    path = output_path(output or Path(f"{name}{SUFFIX}"), SUFFIX, model, weights)
    with scratch_folder() as folder:
        way = _Way(folder, images, how, choice, notify, progress)
        source = Path(model) if is_file(model) else way.export(model, weights, options)
        for step in steps:
            source = way.take(step, source)
        artifact, manifest = opened_onnx(source, choice, PRECISIONS)
        work = Compile(
            source=artifact,
            manifest=manifest.model_copy(update={"name": path.stem}),
            backend=row,
            options=engine,
            timeout_s=timeout_s,
            cache=_timing_cache(row),
        )
        made = folder / f"made{SUFFIX}"
        manifest = engine_file(work, made, notify=notify, progress=progress)
        here = gpu_here()
        if here is not None and not row.runs_on(here.sm):
            notify(f"{row.module} does not run on this machine's {here.name} ({here.sm})")
        return _published(made, path, manifest, way.table)


@dataclass(slots=True)
class _Way:
    """The steps from a model to the ONNX file that is compiled, all in one folder."""

    folder: Path
    images: Images
    how: QuantizeOptions
    choice: InputChoice
    notify: Notify
    progress: Progress
    table: Path | None = None

    def export(self, model: str, weights: str | Path | None, options: ModelOptions) -> Path:
        """The float32 graph of a model, simplified."""
        return export(
            model,
            weights=weights,
            options=options,
            choice=self.choice,
            output=self.folder / "export.onnx",
            notify=self.notify,
            progress=self.progress,
        ).path

    def take(self, step: str, source: Path) -> Path:
        """What comes of a graph by a step."""
        return {"cast": self.cast, "quantize": self.quantize}[step](source)

    def cast(self, source: Path) -> Path:
        """The float16 form of a graph."""
        output = self.folder / "cast.onnx"
        return cast(source, output=output, choice=self.choice, notify=self.notify).path

    def quantize(self, source: Path) -> Path:
        """The INT8 form of a float32 graph, by TensorRT's rules."""
        made = quantize(
            str(source),
            data=self.images.data,
            tables=self.images.tables,
            samples=self.images.samples,
            on_broken=self.images.on_broken,
            target="tensorrt",
            how=self.how,
            output=self.folder / "int8.onnx",
            choice=self.choice,
            notify=self.notify,
            progress=self.progress,
        )
        self.table = made.table
        return made.artifact.path


def _require_backend(row: Backend) -> None:
    """Refuse to begin where the engine could not be compiled in the end.

    Raises:
        MissingExtraError: the backend is not installed; it says what can be done without it.
    """
    if row.is_installed():
        return
    other = BACKENDS["rtx"]
    instead = "on a machine without a GPU, `resdeploy export --precision fp16` and `resdeploy "
    instead += "quantize --target tensorrt` write the ONNX file to compile on another"
    if row is not other:
        extra = "" if other.is_installed() else f" (extra {other.extra!r})"
        instead = f"--backend {other.name}{extra} compiles for RTX GPUs without one; {instead}"
    raise MissingExtraError(row.module, row.extra, f"--backend {row.name}", instead=instead)


def _steps(model: str, given: str, wanted: str) -> tuple[str, ...]:
    """What is done to a graph of one precision to have the other.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: nothing leads from the one to the other.
    """
    if wanted not in PRECISIONS:
        raise UnknownNameError("precision", wanted, PRECISIONS)
    if given == wanted:
        return ()
    if (given, wanted) not in _STEPS:
        raise UsageError(
            f"{model} is {given} already, and cannot be made {wanted}",
            hint="start from the float32 file, or compile it as it is",
        )
    return _STEPS[given, wanted]


def _require_images(steps: Sequence[str], images: Images) -> None:
    """Refuse INT8 without images, and images that nothing is done with.

    Raises:
        UsageError: either.
    """
    if "quantize" in steps and not images.are_given:
        raise UsageError(
            "INT8 needs images to calibrate on", hint="--data FOLDER, or --table of such images"
        )
    if "quantize" not in steps and images.are_given:
        raise UsageError(
            "--data, --table and --samples are for --int8 of a float32 model",
            hint="leave them out, or add --int8",
        )


def _timing_cache(row: Backend) -> Path | None:
    """Where a backend keeps how fast its kernels are here: by its version and this GPU."""
    gpu = gpu_here() if row.timing_cache else None
    if gpu is None:
        return None
    version = "-".join(package_versions([row.module]).values())
    name = "-".join((row.module, version, *gpu.name.lower().split(), gpu.driver))
    return make_folder(user_cache()) / f"{name}.timing"


def _published(made: Path, path: Path, manifest: Manifest, table: Path | None) -> Engine:
    """Give engine and table their names, so that neither appears without the other."""
    if table is None:
        return Engine(artifact=publish(made, path, manifest), table=None)
    beside = path.with_name(f"{path.stem}.calibration.safetensors")
    with replacing(beside) as part:
        shutil.copyfile(table, part)
        artifact = publish(made, path, manifest)
    return Engine(artifact=artifact, table=beside)
