"""A step that makes a file in, its file in a folder out; and stored files out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from resdeploy.artifact import Artifact, open_artifact, sidecar_path, write_text
from resdeploy.contracts import Notify, Progress
from resdeploy.engines import BACKENDS, SUFFIX
from resdeploy.errors import ArtifactError
from resdeploy.formats import FORMATS
from resdeploy.graph import EMITTERS
from resdeploy.pipeline import make_simplified
from resdeploy.pipeline.int8.calibration import table_for
from resdeploy.pipeline.int8.graph import Work, quantize_file, tell_unfused
from resdeploy.pipeline.make_engine import Compile as CompileWork
from resdeploy.pipeline.make_engine import engine_file
from resdeploy.pipeline.make_export import Export as ExportWork
from resdeploy.pipeline.make_export import export_file
from resdeploy.pipeline.make_fp16 import cast_file
from resdeploy.pipeline.prepared import Prepared
from resdeploy.pipeline.steps import Calibrate, Cast, Compile, Export, Quantize, Simplify
from resdeploy.pipeline.store import Store
from resdeploy.quantization.table import CalibrationTable, read_table, write_table
from resdeploy.records import EngineOptions, Manifest

Making = Export | Simplify | Quantize | Cast | Compile

_MODEL = "model"  # and the suffix of its format
_TABLE = "table.safetensors"


class Works:
    """The steps of one run that make files, each into the folder that it is given."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        threads: int,
        notify: Notify,
        progress: Progress,
    ) -> None:
        self.recipe = prepared.plan.recipe
        self.preprocess = prepared.plan.facts.preprocess
        self.loaded = prepared.loaded
        self.calibration = prepared.calibration
        self.store = store
        self.threads = threads
        self.notify = notify
        self.progress = progress

    def make(self, step: Making, folder: Path) -> None:
        """Write the file of a step, and its sidecar."""
        match step:
            case Export():
                self._export(step, folder)
            case Simplify():
                self._derive(step.graph, folder, make_simplified.simplify_file)
            case Quantize():
                self._quantize(step, folder)
            case Cast():
                self._derive(step.graph, folder, cast_file, options=self.recipe.cast)
            case Compile():
                self._compile(step, folder)
            case _:
                assert_never(step)

    def tell(self, step: Making, manifest: Manifest) -> None:
        """Say again what the user must know of a file that is there already."""
        match step:
            case Simplify():
                make_simplified.tell_unsimplified(manifest, self.notify)
            case Quantize():
                tell_unfused(manifest, self.notify)
            case _:
                return

    def _export(self, step: Export, folder: Path) -> None:
        path = folder / f"{_MODEL}{FORMATS[step.format].suffix}"
        work = ExportWork(
            loaded=self.loaded,
            preprocess=self.preprocess,
            name=self.recipe.name,
            format=step.format,
            options=self.recipe.export.of(step.format),
            batch=self.recipe.input.batch,
        )
        manifest = export_file(work, path, notify=self.notify)
        write_text(sidecar_path(path), manifest.to_json())

    def calibrate(self, step: Calibrate, folder: Path) -> None:
        """Write the calibration table of a step."""
        source, manifest = self.made(step.graph)
        assert self.calibration is not None  # the recipe was refused otherwise
        table = table_for(
            source,
            manifest,
            self.preprocess,
            self.calibration,
            threads=self.threads,
            progress=self.progress,
        )
        write_table(table, folder / _TABLE)

    def _quantize(self, step: Quantize, folder: Path) -> None:
        source, manifest = self.made(step.graph)
        work = Work(
            source=source,
            manifest=manifest,
            table=self.table(step.table),
            emitter=EMITTERS[step.quantizer],
            how=self.recipe.quantization,
            bits=step.bits,
            threads=self.threads,
            data=self.calibration,
            preprocess=self.preprocess,
        )
        path = folder / f"{_MODEL}.onnx"
        made = quantize_file(work, path, notify=self.notify, progress=self.progress)
        write_text(sidecar_path(path), made.to_json())

    def _compile(self, step: Compile, folder: Path) -> None:
        source, manifest = self.made(step.graph)
        work = CompileWork(
            source=source,
            manifest=manifest,
            backend=BACKENDS[step.backend],
            options=EngineOptions(profiles=(step.batch,)),
        )
        path = folder / f"{_MODEL}{SUFFIX}"
        made = engine_file(work, path, notify=self.notify, progress=self.progress)
        write_text(sidecar_path(path), made.to_json())

    def _derive(
        self, key: str, folder: Path, work: Callable[..., Manifest], **settings: object
    ) -> None:
        """Make an ONNX file, and its sidecar, of a stored one."""
        source, manifest = self.made(key)
        path = folder / f"{_MODEL}.onnx"
        made = work(source, manifest, path, **settings, notify=self.notify)
        write_text(sidecar_path(path), made.to_json())

    def made(self, key: str) -> tuple[Artifact, Manifest]:
        """A stored artifact, its bytes checked against its sidecar."""
        folder = self.store.path(key)
        names = [f"{_MODEL}{row.suffix}" for row in FORMATS]
        found = next(
            (folder / name for name in names if (folder / name).exists()), folder / names[0]
        )
        artifact = open_artifact(found)
        if artifact.manifest is None:
            raise ArtifactError(f"{artifact.path} has lost its sidecar")
        return artifact, artifact.manifest

    def table(self, key: str) -> CalibrationTable:
        """A stored calibration table."""
        return read_table(self.store.path(key) / _TABLE)
