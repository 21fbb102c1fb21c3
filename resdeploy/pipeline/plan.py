"""A recipe and the facts it depends on in, the typed steps of a run out. Pure.

Every step has a content key: a hash of its own fields, of the keys of what it reads, and of
the versions and machine facts that its bytes depend on. Equal keys mean equal results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resdeploy.artifact import digest_of
from resdeploy.errors import EngineError, MissingExtraError
from resdeploy.graph import EMITTERS, Emitter
from resdeploy.measure.machine import WeightBits, weight_bits_for
from resdeploy.pipeline.steps import (
    Bench,
    Build,
    Calibrate,
    Cast,
    Compile,
    Drift,
    Export,
    Layers,
    Quantize,
    Simplify,
    Stage,
    Step,
)
from resdeploy.recipe import Recipe
from resdeploy.recipe_tables import TargetTable
from resdeploy.records import BatchProfile, DataFacts, GpuFacts, MachineFacts, Preprocess
from resdeploy.runtimes import EXACT
from resdeploy.words import WeightBitsChoice

ONNX = "onnx"

# What decoding and preprocessing an image depends on.
_IMAGES = ("pillow", "numpy")

# Every package that a key may name.
KEYED_PACKAGES = (
    "resdeploy", *_IMAGES,
    "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime", "openvino", "torch",
    "tensorrt", "tensorrt-rtx-cu13",
)  # fmt: skip

# Written into every key: raise it when the same inputs would give other bytes.
LOGIC = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """A target, the stages before it, and the step that makes its file (None: skipped)."""

    table: TargetTable
    chain: tuple[str, ...]
    key: str | None
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a plan depends on besides the recipe, looked up before planning.

    calibration_order, evaluation_order: digests of names and contents in order.
    weights_origin: where weights came from, by commit or URL.
    model: fingerprint of what code that is not ours made; see LoadedModel.
    versions: of every package that a step's bytes can depend on.
    quantizers: which Q/DQ target each runtime takes. packages: which one each runtime is in.
    missing: runtime to (package, extra) for those that are not installed.
    backends: the compiler of each runtime that runs engines. gpu: that they run on here.
    """

    weights_sha256: str | None
    weights_origin: str
    model: str
    preprocess: Preprocess
    calibration: DataFacts | None
    calibration_order: str
    evaluation: DataFacts
    evaluation_order: str
    machine: MachineFacts
    versions: Mapping[str, str]
    quantizers: Mapping[str, str]
    packages: Mapping[str, str]
    missing: Mapping[str, tuple[str, str]]
    backends: Mapping[str, str]
    gpu: GpuFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps in the order they run, and what the recipe's targets come to."""

    recipe: Recipe
    facts: Facts
    steps: tuple[Step, ...]
    targets: tuple[TargetPlan, ...]


def plan_of(recipe: Recipe, facts: Facts) -> Plan:
    """The plan of a recipe.

    Raises:
        MissingExtraError: a required target's runtime is not installed.
    """
    return _Planner(recipe, facts).plan()


class _Planner:
    def __init__(self, recipe: Recipe, facts: Facts) -> None:
        self.recipe = recipe
        self.facts = facts
        self.steps: dict[str, Step] = {}
        self.stages: dict[str, Stage] = {}

    def plan(self) -> Plan:
        build = self.add(Build(key=self.key("build", self._model())))
        targets = tuple(self.target(table, build) for table in self.recipe.targets)
        done = [target.table for target in targets if target.key is not None]
        if done:
            self.compare(build)
            self.look(build, [table.name for table in done if table.format == ONNX])
            self.time([table.name for table in done])
        return Plan(
            recipe=self.recipe,
            facts=self.facts,
            steps=tuple(self.steps.values()),
            targets=targets,
        )

    def _model(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "reference": recipe.model.reference,
            "weights": self.facts.weights_sha256,
            "path": recipe.weights,  # it stands in the sidecar
            "origin": self.facts.weights_origin,  # and so does this
            "seed": recipe.seed,
            "options": recipe.model.options.model_dump(mode="json"),
            "made": self.facts.model,
        }

    def export(self, build: str, format: str) -> str:
        batch = self.recipe.input.batch
        inputs = {
            "build": build,
            "name": self.recipe.name,
            "preprocess": self.facts.preprocess.model_dump(mode="json"),
            "batch": batch and batch.model_dump(),
            "format": format,
            "options": self.recipe.export.of(format).model_dump(mode="json"),
        }
        key = self.key("export", inputs, "torch", "onnx", "onnxscript", "onnxruntime")
        return self.add(Export(key=key, format=format))

    def target(self, table: TargetTable, build: str) -> TargetPlan:
        if table.runtime in self.facts.missing:
            package, extra = self.facts.missing[table.runtime]
            if table.required:
                raise MissingExtraError(package, extra, f"the target {table.name!r}")
            reason = f"{table.runtime} is not installed (extra {extra!r})"
            return TargetPlan(table=table, chain=(), key=None, skipped=reason)
        backend = self.facts.backends.get(table.runtime)
        if backend is not None and self.facts.gpu is None:
            reason = f"{table.runtime} needs a GPU, and there is none here"
            if table.required:
                raise EngineError(
                    f"the target {table.name!r} cannot be run: {reason}",
                    hint="required = false leaves it out on machines without one",
                )
            return TargetPlan(table=table, chain=(), key=None, skipped=reason)
        if backend is None and table.format != ONNX:  # PyTorch's own are not worked on any further
            export = self.export(build, table.format)
            self.stage(table.name, export, table.runtime)
            return TargetPlan(table=table, chain=(), key=export)
        return self.graph_target(table, build, backend)

    def graph_target(self, table: TargetTable, build: str, backend: str | None) -> TargetPlan:
        """A target that is an ONNX file, or an engine made of one."""
        works = self.after_simplify(table)
        if backend is not None:
            works.append(("compile", lambda graph: self.compile(graph, backend)))
        on_cpu = table.runtime if backend is None else EXACT  # who compares what comes before
        export = self.export(build, ONNX)
        chain = [self.stage("export", export, on_cpu)]
        made, graph = "simplify", self.simplify(export)
        for name, work in works:
            chain.append(self.stage(made, graph, on_cpu))
            made, graph = name, work(graph)
        self.stage(table.name, graph, table.runtime)
        return TargetPlan(table=table, chain=tuple(chain), key=graph)

    def compile(self, graph: str, backend: str) -> str:
        batch = self.recipe.input.batch or BatchProfile()
        gpu = self.facts.gpu
        inputs = {
            "graph": graph,
            "backend": backend,
            "batch": batch.model_dump(),
            "gpu": gpu and gpu.model_dump(),
        }
        key = self.key("compile", inputs, "tensorrt", "tensorrt-rtx-cu13")
        return self.add(Compile(key=key, graph=graph, backend=backend, batch=batch))

    def after_simplify(self, table: TargetTable) -> list[tuple[str, Callable[[str], str]]]:
        """What is done for a precision: the name of what comes of it, and the work."""
        works: list[tuple[str, Callable[[str], str]]] = []
        if table.precision.startswith("int8"):
            works.append(("quantize", lambda graph: self.quantize(graph, table.runtime)))
        if table.precision.endswith("fp16"):
            works.append(("cast", self.cast))
        return works

    def cast(self, graph: str) -> str:
        inputs = {"graph": graph, "options": self.recipe.cast.model_dump(mode="json")}
        key = self.key("cast", inputs, "onnx", "onnx-ir", "onnxruntime")
        return self.add(Cast(key=key, graph=graph))

    def simplify(self, graph: str) -> str:
        tools = ("onnxsim", "onnxscript", "onnx", "onnx-ir", "onnxruntime")
        key = self.key("simplify", {"graph": graph}, *tools)
        return self.add(Simplify(key=key, graph=graph))

    def quantize(self, graph: str, runtime: str) -> str:
        quantizer = self.facts.quantizers[runtime]
        asked = self.recipe.quantization
        table_data = self.recipe.data.calibration
        assert self.facts.calibration is not None  # the recipe was refused otherwise
        assert table_data is not None
        cpu = [self.facts.machine.cpu, *self.facts.machine.flags]
        observed = {
            "graph": graph,
            "data": self.facts.calibration.digest,
            "on_broken": table_data.on_broken.value,
            "cpu": cpu,  # float kernels differ between processors, and so do the ranges
        }
        table = self.add(
            Calibrate(
                key=self.key("calibrate", observed, *_IMAGES, "onnx", "onnx-ir", "onnxruntime"),
                graph=graph,
            )
        )
        bits = chosen_bits(asked.weight_bits, self.facts.machine, EMITTERS[quantizer])
        inputs = {
            "graph": graph,
            "table": table,
            "quantizer": quantizer,
            "bits": [str(bits.bits), bits.reason],
            "how": asked.model_dump(mode="json"),
            "cpu": cpu,
            "tried on": self.facts.calibration_order,
        }
        tools = (*_IMAGES, "onnx", "onnx-ir", "onnxruntime", "openvino", "scipy")
        return self.add(
            Quantize(
                key=self.key("quantize", inputs, *tools),
                graph=graph,
                table=table,
                quantizer=quantizer,
                bits=bits,
            )
        )

    def compare(self, build: str) -> None:
        stages = tuple(self.stages.values())
        inputs = {
            "build": build,
            "stages": [[stage.name, stage.key, stage.runtime] for stage in stages],
            **self._images_compared(),
        }
        packages = sorted({self.facts.packages[stage.runtime] for stage in stages})
        key = self.key("drift", inputs, *_IMAGES, "torch", *packages)
        self.add(Drift(key=key, stages=stages))

    def look(self, build: str, names: list[str]) -> None:
        """Have the layers of these targets compared, if there are any, and that is wanted."""
        samples = self.recipe.layers.samples
        if not names or not samples:
            return
        targets = tuple(self.stages[name] for name in names)
        inputs = {
            "build": build,
            "targets": [[stage.name, stage.key, stage.runtime] for stage in targets],
            "samples": samples,
            **self._images_compared(),
        }
        packages = {self.facts.packages[stage.runtime] for stage in targets}
        tools = (*_IMAGES, "torch", "onnx", "onnx-ir", "onnxruntime", *sorted(packages))
        key = self.key("layers", inputs, *tools)
        self.add(Layers(key=key, targets=targets, samples=samples))

    def _images_compared(self) -> dict[str, Any]:
        """What a comparison on the evaluation images depends on beside the files."""
        return {
            "data": self.facts.evaluation.digest,
            "order": self.facts.evaluation_order,
            "on_broken": self.recipe.data.evaluation.on_broken.value,
            "cpu": [self.facts.machine.cpu, *self.facts.machine.flags],
        }

    def time(self, names: list[str]) -> None:
        targets = tuple(self.stages[name] for name in names)
        bench = self.recipe.bench.model_dump(mode="json")
        timed = {"targets": [stage.key for stage in targets], "bench": bench}
        self.add(Bench(key=self.key("bench", timed), targets=targets))

    def stage(self, name: str, key: str, runtime: str) -> str:
        """Have a file compared, once, and give back its name: two runtimes' INT8 files differ."""
        if name in self.stages and self.stages[name].key != key:
            name = f"{name} ({runtime})"
        self.stages.setdefault(name, Stage(name=name, key=key, runtime=runtime))
        return name

    def add(self, step: Step) -> str:
        """Put a step into the plan once, and give back its key."""
        self.steps.setdefault(step.key, step)
        return step.key

    def key(self, kind: str, inputs: Mapping[str, Any], *packages: str) -> str:
        versions = self.facts.versions
        tools = {package: versions.get(package, "") for package in ("resdeploy", *packages)}
        return f"{kind}-{digest_of({'logic': LOGIC, 'inputs': inputs, 'tools': tools})[:16]}"


def float_source(plan: Plan, key: str) -> str | None:
    """The key of the float graph that an INT8 file was made of; None for other files."""
    step = next(step for step in plan.steps if step.key == key)
    if isinstance(step, Cast | Compile):
        return float_source(plan, step.graph)
    return step.graph if isinstance(step, Quantize) else None


def chosen_bits(choice: WeightBitsChoice, machine: MachineFacts, emitter: Emitter) -> WeightBits:
    """The width of INT8 weights that was asked for, or what target and CPU need."""
    if choice is not WeightBitsChoice.AUTO:
        return WeightBits(bits=int(choice.value), reason="asked for")
    if len(emitter.weight_bits) == 1:
        return WeightBits(bits=emitter.weight_bits[0], reason=f"{emitter.name} has no others")
    return weight_bits_for(machine)
