"""A recipe file in, a finished run folder out: plan, execute, judge, report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from resdeploy.artifact import (
    clear_leftovers,
    digest_of,
    make_folder,
    read_document,
    writable,
    write_text,
)
from resdeploy.contracts import Notify, Progress, Source, silent, unheard
from resdeploy.data import refuse_overlap, source_from_reference
from resdeploy.engines import BACKENDS
from resdeploy.engines.gpu import gpu_here
from resdeploy.errors import RecipeError, UnknownNameError, UsageError
from resdeploy.formats import FORMATS, Format
from resdeploy.gate import METRICS, problems_of
from resdeploy.graph import EMITTERS
from resdeploy.measure.machine import machine_facts, package_versions
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.reference import resolve
from resdeploy.pipeline.execute import STORE, Execution
from resdeploy.pipeline.make import require_image_channels
from resdeploy.pipeline.make_export import exporters_of
from resdeploy.pipeline.plan import KEYED_PACKAGES, ONNX, Facts, plan_of
from resdeploy.pipeline.prepared import Prepared
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.pipeline.store import Store
from resdeploy.quantization import METHODS
from resdeploy.recipe import Recipe, recipe_from_toml
from resdeploy.recipe_tables import DataTable, Names
from resdeploy.records import Baseline, RunResult
from resdeploy.report import report_text
from resdeploy.runtimes import BASELINES, RUNTIMES

RESULTS = "results.json"
PREVIOUS = "results.previous.json"
REPORT = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A line of `run --dry-run`."""

    kind: str
    key: str
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Where a run's results lie; `report` is None where its extra is not installed."""

    result: RunResult
    out: Path
    results: Path
    report: Path | None


def recipe_names() -> Names:
    """What a recipe may name, from the tables of the rooms."""
    return Names(
        models=VARIANTS.names,
        formats=FORMATS.names,
        precisions=sorted({name for row in FORMATS for name in row.precisions}),
        runtimes=[row.name for row in RUNTIMES if not row.simulates],
        methods=METHODS.names,
        metrics=METRICS.names,
        baselines=BASELINES.names,
        rule_problems=problems_of,
    )


def prepare(path: Path, *, progress: Progress = silent) -> Prepared:
    """Read a recipe and look up everything its plan depends on.

    Nothing is written, except that weights to download go to their cache.

    Raises:
        RecipeError: the recipe has problems.
        DataError, WeightsError: what it names cannot be read, or the two sets of images
            overlap.
        MissingExtraError: a required target's runtime is not installed.
    """
    recipe = recipe_from_toml(path, recipe_names())
    _refuse_impossible(path, recipe)
    evaluation = _source(recipe, recipe.data.evaluation)
    calibration = None
    if recipe.data.calibration is not None:
        calibration = _source(recipe, recipe.data.calibration)
        refuse_overlap(calibration, evaluation)
    start = time.perf_counter()
    loaded = resolve(
        recipe.model.reference,
        recipe.weights,
        seed=recipe.seed,
        options=recipe.model.options,
        size=recipe.input.size,
        progress=progress,
    )
    load_seconds = time.perf_counter() - start
    choice = InputChoice.model_validate(recipe.input.model_dump(exclude={"batch"}))
    preprocess = chosen_preprocess(loaded.preprocess, choice)
    require_image_channels(loaded.facts, preprocess)
    facts = Facts(
        weights_sha256=loaded.facts.weights_sha256,
        weights_origin=loaded.facts.weights_origin,
        model=loaded.fingerprint,
        preprocess=preprocess,
        calibration=None if calibration is None else calibration.facts(),
        evaluation=evaluation.facts(),
        calibration_order="" if calibration is None else _order(calibration),
        evaluation_order=_order(evaluation),
        versions=package_versions(KEYED_PACKAGES),
        machine=machine_facts(),
        quantizers=_quantizers(),
        packages={row.name: row.module for row in RUNTIMES},
        missing={row.name: (row.module, row.extra) for row in RUNTIMES if not row.is_installed()},
        backends={row.runtime: row.name for row in BACKENDS},
        gpu=gpu_here(),
    )
    return Prepared(
        plan=plan_of(recipe, facts),
        loaded=loaded,
        load_seconds=load_seconds,
        calibration=calibration,
        evaluation=evaluation,
        baseline=_baseline(recipe),
    )


def _quantizers() -> dict[str, str]:
    """Which Q/DQ target each runtime takes; both that run engines take TensorRT's."""
    found = {emitter.runtime: emitter.name for emitter in EMITTERS}
    return {**found, **{row.runtime: found["tensorrt"] for row in BACKENDS}}


def _order(source: Source) -> str:
    """A digest of the images' names and contents in the order in which they are read."""
    return digest_of(list(source.hashes().items()))


def _refuse_impossible(path: Path, recipe: Recipe) -> None:
    """Refuse targets whose format, precision and runtime do not go together."""
    quantizers = _quantizers()
    problems = []
    for index, target in enumerate(recipe.targets):
        where = f"targets[{index}]"
        if target.precision not in FORMATS[target.format].precisions:
            problems.append(f"{where}.precision: {target.format} cannot hold {target.precision}")
        if target.format not in RUNTIMES[target.runtime].formats:
            problems.append(f"{where}.runtime: {target.runtime} does not run {target.format}")
        if target.precision.startswith("int8") and target.runtime not in quantizers:
            problems.append(f"{where}.precision: no INT8 graph is made for {target.runtime}")
    exported = {ONNX if form.command == "trt" else form.name for form in _formats(recipe)}
    for format in exported:
        try:
            exporters_of(format, recipe.export.of(format))
        except (UnknownNameError, UsageError) as error:
            problems.append(f"export: {error.message}; {error.hint}")
    if problems:
        raise RecipeError(str(path), problems)


def _formats(recipe: Recipe) -> list[Format]:
    return [FORMATS[target.format] for target in recipe.targets]


def _source(recipe: Recipe, table: DataTable) -> Source:
    source: Source = source_from_reference(
        table.reference(recipe.base), samples=table.samples, on_broken=table.on_broken
    )
    return source


def _baseline(recipe: Recipe) -> Baseline | None:
    """The accepted baseline; a recipe may name a file that is yet to be accepted."""
    path = recipe.baseline_path
    return None if path is None or not path.exists() else read_document(path, Baseline)


def planned_steps(prepared: Prepared, out: Path) -> tuple[PlannedStep, ...]:
    """The steps of a plan and which of them are in `out` already."""
    store = Store(out / STORE)
    return tuple(
        PlannedStep(kind=type(step).__name__.lower(), key=step.key, cached=store.has(step.key))
        for step in prepared.plan.steps
    )


def run(
    recipe: Path,
    *,
    out: Path | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Finished:
    """Build, export, simplify, calibrate, quantize, check, bench, gate and report.

    out: the folder for everything that is made; `runs/<recipe name>` by default. Results of
    an earlier run there are kept as results.previous.json until this one is finished, so
    that nobody takes them for this run's.

    Raises:
        ResdeployError: a step failed; what was finished before stays for the next run.
    """
    prepared = prepare(recipe, progress=progress)
    folder = make_folder(out or Path("runs") / prepared.plan.recipe.name)
    _set_aside(folder)
    for name, data in (("calibration", prepared.calibration), ("evaluation", prepared.evaluation)):
        if data is not None and data.facts().synthetic:
            notify(f"the {name} images are synthetic: no accuracy rule can pass")
    missing = prepared.plan.recipe.baseline_path
    if missing is not None and prepared.baseline is None:
        notify(f"there is no baseline at {missing}; `resdeploy baseline accept` writes one")
    result = Execution(prepared, folder, notify=notify, progress=progress).run()
    results = folder / RESULTS
    write_text(results, result.to_json())
    return Finished(
        result=result, out=folder, results=results, report=_write_report(result, folder, notify)
    )


def _set_aside(folder: Path) -> None:
    clear_leftovers(folder)
    results, report = folder / RESULTS, folder / REPORT
    with writable(results):
        if results.exists():
            results.replace(folder / PREVIOUS)
        report.unlink(missing_ok=True)


def _write_report(result: RunResult, folder: Path, notify: Notify) -> Path | None:
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        notify(f"no {REPORT}: {missing[0]} is not installed (pip install 'resdeploy[report]')")
        return None
    write_text(folder / REPORT, report_text("html", result))
    return folder / REPORT
