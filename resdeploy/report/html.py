"""A RunResult in, one self-contained HTML page out: no script, no network, no date."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from resdeploy.records import (
    DataFacts,
    DriftRecord,
    MachineFacts,
    ModelFacts,
    Preprocess,
    RunResult,
    TargetStatus,
    Verdict,
)
from resdeploy.report import format as text
from resdeploy.report.charts import classes_svg, sweep_svg, trade_svg
from resdeploy.report.flips import classes_grid, flips_view
from resdeploy.report.grids import (
    Cell,
    Column,
    Grid,
    Tone,
    drift_grid,
    findings_grid,
    latency_grid,
    steps_grid,
    targets_grid,
)
from resdeploy.report.layer_plot import layers_svg
from resdeploy.report.layers import layers_grid, verdict_of_layers
from resdeploy.report.plots import INKS, drift_svg, latency_svg
from resdeploy.report.recipe_text import toml_from_recipe
from resdeploy.report.svg import inline_svg

_VERDICTS = {
    Verdict.PASS: "Passed",
    Verdict.FAIL: "Failed",
    Verdict.INCONCLUSIVE: "Inconclusive",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was tested or tested on: its name, its value and the small print."""

    term: str
    value: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawing with a heading and one sentence on how to read it."""

    title: str
    drawing: Markup
    reading: str


def page_from_result(result: RunResult) -> str:
    """The report of a run as an HTML page; equal results give equal pages."""
    environment = Environment(
        loader=PackageLoader("resdeploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template("report.html.j2").render(
        name=result.name,
        verdict=result.judgement.verdict.value,
        headline=_VERDICTS[result.judgement.verdict],
        reason=text.sentence(result.judgement.reason),
        notes=_notes(result),
        facts=_facts(result),
        targets=targets_grid(result),
        findings=findings_grid(result.judgement),
        plots=_plots(result),
        latency=latency_grid(result.bench),
        drift=drift_grid(result.drift),
        layers=[(verdict_of_layers(record), layers_grid(record)) for record in result.layers],
        classes=[
            grid
            for record in _of_targets(result)
            if record.per_class and (grid := classes_grid(record)).rows
        ],
        flips=[flips_view(record, result) for record in result.drift if record.flipped],
        steps=steps_grid(result.steps),
        artifacts=_artifacts_grid(result),
        versions=_versions_grid(result.machine),
        recipe_file=f"{result.name}.toml",
        command=f"resdeploy run {shlex.quote(f'{result.name}.toml')}",
        recipe=toml_from_recipe(result.recipe),
    )


def breakable(words: str) -> Markup:
    """The words, escaped, which may also be broken after a dot, an underscore or a slash."""
    parts = re.split(r"(?<=[._/])(?=\w)", words)
    return Markup("<wbr>").join(escape(part) for part in parts)


def _notes(result: RunResult) -> list[str]:
    """What a reader must know beside the verdict."""
    notes = [
        f"{target.name} was skipped: {target.reason or 'its runtime is not to be had here'}"
        for target in result.targets
        if target.status is TargetStatus.SKIPPED
    ]
    notes += [
        f"{target.name} was not timed: {target.reason or 'its answers broke a rule'}"
        for target in result.targets
        if target.status is TargetStatus.NOT_TIMED
    ]
    notes += [
        f"The layers of {name} were not compared: {gap}" for name, gap in result.layer_gaps.items()
    ]
    if not result.model.trained:
        notes.append("The model is not trained, so nothing here says how accurate it is")
    if result.evaluation.synthetic:
        notes.append("The images are synthetic, so nothing here says how accurate the model is")
    return [text.sentence(note) for note in notes]


def _facts(result: RunResult) -> list[Fact]:
    facts = [
        _model_fact(result.model),
        _weights_fact(result.model),
        _data_fact("Evaluation data", result.evaluation),
    ]
    if result.calibration is not None:
        facts.append(_data_fact("Calibration data", result.calibration))
    return [*facts, _input_fact(result.preprocess), _machine_fact(result.machine)]


def _model_fact(model: ModelFacts) -> Fact:
    notes = (f"{text.count_text(model.params)} parameters", f"{model.num_classes} classes")
    return Fact(term="Model", value=model.reference, notes=notes)


def _weights_fact(model: ModelFacts) -> Fact:
    trained = "trained" if model.trained else "not trained"
    digest = (f"sha256 {text.short_hash(model.weights_sha256)}",) if model.weights_sha256 else ()
    return Fact(term="Weights", value=model.weights, notes=(trained, *digest))


def _data_fact(term: str, data: DataFacts) -> Fact:
    notes = [
        f"{text.count_text(data.samples)} {'synthetic ' if data.synthetic else ''}images",
        "labelled" if data.labelled else "no labels",
        f"sha256 {text.short_hash(data.digest)}",
    ]
    if data.skipped:
        notes.append(f"{len(data.skipped)} broken and skipped")
    return Fact(term=term, value=data.reference, notes=tuple(notes))


def _input_fact(preprocess: Preprocess) -> Fact:
    resized = f"resized to {preprocess.resize}" if preprocess.resize else "not resized"
    cropped = f"cropped to {preprocess.crop}" if preprocess.crop else "not cropped"
    return Fact(
        term="Input",
        value=f"{preprocess.channels} {preprocess.size}{text.SPACE}×{text.SPACE}{preprocess.size}",
        notes=(
            f"{resized}, {cropped}",
            f"mean {_numbers(preprocess.mean)}",
            f"std {_numbers(preprocess.std)}",
        ),
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _machine_fact(machine: MachineFacts) -> Fact:
    cores = f"{machine.cores} core{'s' * (machine.cores != 1)}"
    return Fact(
        term="Machine",
        value=machine.cpu,
        notes=(
            f"{cores}, {machine.memory_gib}{text.SPACE}GiB",
            machine.os,
            f"Python {machine.python}",
        ),
    )


def _of_targets(result: RunResult) -> list[DriftRecord]:
    names = {target.name for target in result.targets}
    return [record for record in result.drift if record.name in names]


def _plots(result: RunResult) -> list[Plot]:
    """The drawings that there is something to draw of."""
    return [
        Plot(
            title=title,
            drawing=Markup(
                inline_svg(
                    svg,
                    prefix=prefix,
                    label=f"{title}: the same numbers are in the tables below.",
                    inks=INKS,
                )
            ),
            reading=reading,
        )
        for prefix, title, svg, reading in _drawn(result)
        if svg
    ]


def _drawn(result: RunResult) -> tuple[tuple[str, str, str, str], ...]:
    """Of each drawing the prefix of its ids, its title, itself, and how to read it."""
    return (
        (
            "latency",
            "Latency",
            latency_svg(result.bench, result.targets),
            "Each silhouette holds every timed round of one runner: further left is faster, "
            "narrower is steadier; the tall line is the median, the short one p99, and the "
            "reference is grey.",
        ),
        (
            "drift",
            "Drift along the chain",
            drift_svg(result),
            "Each group follows one target from export to the file that ships: a shorter bar is "
            "more noise, an open bar is identical to the reference, and orange marks the step "
            "where answers began to change.",
        ),
        (
            "layers",
            "Noise by layer",
            layers_svg(result.layers),
            "The line is how far each layer's output is from the reference's as the file runs; a "
            "dot is the noise that the layer adds by itself, lower is more; the upright line marks "
            f"the worst. On {_looked_at(result)} images.",
        ),
        (
            "trade",
            "Accuracy against latency",
            trade_svg(result),
            "Further up answers better, further left is faster; the line is the front that nothing "
            "here is beyond (Pareto). Times are medians at the least batch.",
        ),
        (
            "sweep",
            "Throughput by batch",
            sweep_svg(result.bench, [target.name for target in result.targets]),
            "The number stands at the knee: the least batch that brings 95 % of the runner's best "
            "throughput. A larger one only makes answers later.",
        ),
        *(
            (
                f"classes-{index}",
                f"Classes changed by {record.name}",
                classes_svg(record),
                "The share of each class's images that the candidate gets right and the reference "
                "does not, less those that it loses.",
            )
            for index, record in enumerate(_of_targets(result))
        ),
    )


def _looked_at(result: RunResult) -> str:
    """How many images the layers were compared on."""
    return text.count_text(max((record.samples for record in result.layers), default=0))


def _artifacts_grid(result: RunResult) -> Grid:
    return Grid(
        title="Artifacts",
        caption="The files, and the hashes that name their contents",
        columns=(Column("Target"), Column("File"), Column("sha256")),
        rows=tuple(
            (Cell(target.name, Tone.STRONG), Cell(target.path or ""), Cell(target.sha256 or ""))
            for target in result.targets
            if target.path
        ),
    )


def _versions_grid(machine: MachineFacts) -> Grid:
    flags = ((Cell("CPU flags", Tone.STRONG), Cell(", ".join(machine.flags))),)
    versions = tuple(
        (Cell(tool, Tone.STRONG), Cell(version))
        for tool, version in sorted(machine.versions.items())
    )
    return Grid(
        title="Tools",
        caption="The tools and the processor features that the figures depend on",
        columns=(Column("Tool"), Column("Version")),
        rows=versions + (flags if machine.flags else ()),
    )
