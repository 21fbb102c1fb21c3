"""What `models`, `show`, `predict`, `inspect` and `doctor` found in, rich tables out.

Rows come as plain dicts, as --json prints them, so that this file needs no other room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from resdeploy.records import USUAL_CAPABILITIES
from resdeploy.report import format as text
from resdeploy.report.console import table_from_grid
from resdeploy.report.grids import Cell, Column, Grid

Row = Mapping[str, Any]


def _grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """A table; a column title that ends in '#' is one of numbers."""
    return table_from_grid(
        Grid(
            title=title,
            caption="",
            columns=tuple(Column(name.rstrip("#"), name.endswith("#")) for name in columns),
            rows=tuple(tuple(Cell(cell) for cell in row) for row in rows),
        )
    )


def models_table(rows: Sequence[Row]) -> RenderableType:
    """A line for every model, or a few short ones where that is too wide.

    Of the published weights, the default ones are named, with their top-1.
    """
    title = f"{len(rows)} model{'s' * (len(rows) != 1)}"
    lines = _grid(
        title,
        ("name", "family", "params M#", "GMACs#", "input", "weights", "top-1#", "source"),
        [
            (
                row["name"],
                "\n".join(wrap(row["family"], 14)),
                *_costs(row),
                " ".join(_input(row)),
                "\n".join(_weights(row)),
                *_accuracy(row),
            )
            for row in rows
        ],
    )
    blocks = _grid(
        title,
        ("name, family", "params M#", "GMACs#", "input", "weights, top-1"),
        [
            (
                f"{row['name']}\n  {row['family']}",
                *_costs(row),
                "\n".join(_input(row)),
                "\n".join((*_weights(row), " ".join(_accuracy(row)))),
            )
            for row in rows
        ],
    )
    return _Fitting(lines, blocks)


class _Fitting:
    """The first of two views where it fits into the width, else the second."""

    def __init__(self, wide: RenderableType, narrow: RenderableType) -> None:
        self._wide = wide
        self._narrow = narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=10_000)
        needed = Measurement.get(console, unlimited, self._wide).maximum
        yield self._wide if needed <= options.max_width else self._narrow


def _costs(row: Row) -> tuple[str, str]:
    return f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}"


def _input(row: Row) -> tuple[str, ...]:
    """How an image becomes the input: 256→224 bicubic; 32 where it must have that size."""
    how: Row = row["preprocess"]
    if how["resize"] is None:
        return (str(how["size"]),)
    return f"{how['resize']}→{how['size']}", how["interpolation"]


def _weights(row: Row) -> tuple[str, ...]:
    """The default weights and how many more there are; in two lines where they are long."""
    if not row["weights"]:
        return (text.NONE,)
    reference: str = row["weights"][0]["reference"]
    more = f" +{len(row['weights']) - 1}" if len(row["weights"]) > 1 else ""
    if len(reference + more) <= 30 or "." not in reference:
        return (reference + more,)
    repository, dot, tag = reference.partition(".")
    return repository + dot, tag + more


def _accuracy(row: Row) -> tuple[str, str]:
    """Top-1 of the default weights and who published it."""
    if not row["weights"]:
        return "", ""
    known: Row = row["weights"][0]
    if known["top1"] is None:
        return text.NONE, ""
    own = known["top1_size"] == known["preprocess"]["size"]
    size = "" if own else f" at {known['top1_size']}"
    return text.fraction_text(known["top1"]), f"{known['source']}{size}"


def layers_table(fields: Row, *, depth: int) -> RenderableType:
    """A model as a tree of modules down to `depth`, with what they cost, and the totals.

    What lies deeper is in the sums of the modules at `depth`; above that, a module's own row
    has only what no row below it has.
    """
    body = []
    for row in fields["layers"]:
        if row["depth"] > depth:
            continue
        whole = row["leaf"] or row["depth"] == depth
        params = row["params"] if whole else row["own_params"]
        name = row["name"].rpartition(".")[2] if row["depth"] else fields["name"]
        body.append(
            (
                "  " * row["depth"] + name + (" (recursive)" if row["recursive"] else ""),
                row["kind"],
                "×".join(str(size) for size in row["output_shape"]) or text.NONE,
                text.count_text(params if params or whole else None),
                text.count_text(row["macs"] if whole else None),
            )
        )
    shape = "×".join(str(size) for size in fields["input_shape"])
    return Group(
        _grid(f"Layers, for one image {shape}", _LAYER_COLUMNS, body),
        _grid("Totals", ("", "#"), _totals(fields)),
    )


_LAYER_COLUMNS = ("name", "kind", "output", "params#", "MACs#")


def _totals(fields: Row) -> list[tuple[str, str]]:
    fixed = fields["params"] - fields["trainable_params"]
    elsewhere = fields["params"] - fields["layers"][0]["params"]
    unused = [("in modules that were not called", text.count_text(elsewhere))] if elsewhere else []
    return [
        ("parameters", text.count_text(fields["params"])),
        ("trainable", text.count_text(fields["trainable_params"])),
        ("not trainable", text.count_text(fixed)),
        *unused,
        ("MACs of Conv2d and Linear", text.count_text(fields["macs"])),
        *[
            (f"{name} size (MB)", f"{fields[key] / 1e6:.2f}")
            for name, key in (
                ("input", "input_bytes"),
                ("forward pass", "forward_bytes"),
                ("params", "params_bytes"),
            )
        ],
    ]


def predictions_table(rows: Sequence[Row]) -> RenderableType:
    """The likeliest classes of every image."""
    body = []
    for row in rows:
        for rank, guess in enumerate(row["top"]):
            path = row["path"] if rank == 0 else ""
            body.append((path, guess["label"], text.fraction_text(guess["probability"])))
    return _grid("Predictions", ("image", "class", "probability#"), body)


def inspection_view(fields: Row, *, nodes: bool = False) -> RenderableType:
    """An artifact's tensors, operators, provenance and checks; with `nodes`, every node too."""
    graph = fields["graph"]
    manifest: Row = fields["manifest"] or {}
    facts = [
        ("file", fields["path"]),
        ("sha256", fields["sha256"]),
        ("size", text.bytes_text(fields["size_bytes"])),
        ("precision", graph["precision"]),
        *([("opset", str(graph["opset"]))] if graph["opset"] else []),
        ("weight elements", text.count_text(graph["params"])),
        ("MACs per image", _NO_MACS if graph["macs"] is None else text.count_text(graph["macs"])),
        *[(f"weights {name}", text.bytes_text(n)) for name, n in graph["bytes_by_dtype"].items()],
        *_tensors("input", graph["inputs"] or manifest.get("inputs", ())),
        *_tensors("output", graph["outputs"] or manifest.get("outputs", ())),
        *_provenance(manifest),
    ]
    operators = _operators(graph) if graph["nodes"] else Text(_NO_LAYERS)
    views = [_grid("Artifact", ("", ""), facts), operators]
    if fields["note"]:
        views.append(Text(text.sentence(fields["note"])))
    if nodes:
        views.append(_nodes(graph["node_facts"]))
    if manifest:
        views.append(_checks(manifest["verification"]))
    else:
        views.append(Text("No sidecar: nobody says where this file comes from."))
    return Group(*views)


_NO_LAYERS = "Its layers are not known: they are read where the file is built, on a GPU."
_NO_MACS = "not known: the shapes of some nodes are not in the file"


def _operators(graph: Row) -> RenderableType:
    rows = graph["by_precision"]
    macs = graph["macs"]
    times = [row["ms"] for row in rows]
    timed = sum(times) if rows and None not in times else None
    return _grid(
        f"{graph['nodes']} nodes",
        ("operator", "precision", "count#", "of MACs#", *(["ms#", "of time#"] if timed else [])),
        [
            (
                row["operator"],
                row["precision"] or text.NONE,
                text.count_text(row["count"]),
                text.fraction_text(row["macs"] / macs) if macs else text.NONE,
                *([f"{row['ms']:.3f}", text.fraction_text(row["ms"] / timed)] if timed else []),
            )
            for row in rows
        ],
    )


def _nodes(rows: Sequence[Row]) -> RenderableType:
    timed = any(row["ms"] is not None for row in rows)
    return _grid(
        "Every node",
        ("name", "operator", "precision", "MACs#", *(["ms#"] if timed else [])),
        [
            (
                row["name"],
                row["operator"],
                row["precision"] or text.NONE,
                text.count_text(row["macs"]),
                *([_ms(row["ms"])] if timed else []),
            )
            for row in rows
        ],
    )


def _ms(time_ms: float | None) -> str:
    return text.NONE if time_ms is None else f"{time_ms:.3f}"


def difference_view(fields: Row) -> RenderableType:
    """What is another in the second of two artifacts."""
    rows = [(row["name"], row["left"], row["right"]) for row in fields["differences"]]
    paths = fields["left"]["path"], fields["right"]["path"]
    if not rows:
        return Text(f"{paths[0]} and {paths[1]} are the same in everything that is known of them.")
    return _grid(f"{len(rows)} differences", ("", *paths), rows)


def _tensors(kind: str, tensors: Sequence[Row]) -> list[tuple[str, str]]:
    rows = [] if tensors else [(kind, "not in the file")]
    for tensor in tensors:
        shape = ", ".join(str(size) for size in tensor["shape"])
        rows.append((kind, f"{tensor['name']} {tensor['dtype']} [{shape}]"))
    return rows


def _provenance(manifest: Row) -> list[tuple[str, str]]:
    if not manifest:
        return []
    preprocess: Row = manifest["preprocess"] or {"not": "recorded"}
    rows = [("preprocessing", ", ".join(f"{key} {value}" for key, value in preprocess.items()))]
    if manifest["interface"]["pixels"]:
        rows.append(("", "normalised inside: it takes pixels, RGB or grey, resized and cropped"))
    if manifest["data"]:
        rows.append(("weights in", ", ".join(manifest["data"])))
    if manifest["model"] is not None:
        model = manifest["model"]
        trained = "" if model["trained"] else " (not trained)"
        rows.append(("model", f"{model['reference']}, weights {model['weights']}{trained}"))
    if manifest["quantization"] is not None:
        made = manifest["quantization"]
        data = made["calibration"]["data"]
        rows.append(("quantized for", f"{made['target']}, {made['weight_bits']}-bit weights"))
        rows.append(("calibrated on", f"{data['samples']} images of {data['reference']}"))
    rows += _engine(manifest["engine"])
    for step in manifest["history"]:
        tools = ", ".join(f"{name} {version}" for name, version in step["tools"].items())
        rows.append((step["step"], "; ".join((*step["notes"], tools))))
    return rows


def _engine(engine: Row | None) -> list[tuple[str, str]]:
    """Who compiled an engine, for what, and by what its precision is known."""
    if engine is None:
        return []
    options: Row = engine["options"]
    gpu = engine["gpu"]
    able = ", ".join(options["compute_capabilities"] or (*USUAL_CAPABILITIES, "later ones"))
    where = f"compute capability {able}" if gpu is None else f"{gpu['name']}, {gpu['sm']}"
    batches = [f"{row['min']}:{row['opt']}:{row['max']}" for row in options["profiles"]]
    return [
        ("compiled by", f"{engine['backend']} {engine['version']}"),
        ("compiled for", where),
        ("batches", ", ".join(batches)),
        *(("precision seen in", line) for line in engine["obtained"]),
        *([("layers", _layer_counts(engine["layers"]))] if engine["layers"] else []),
        *(("warning", line) for line in engine["warnings"]),
    ]


def _layer_counts(layers: Sequence[Row]) -> str:
    """How many layers read each type, and how many only change the layout of a tensor."""
    moves = [layer for layer in layers if "reformat" in layer["kind"].lower()]
    read = Counter(" and ".join(sorted(set(layer["inputs"]))) or "unknown" for layer in layers)
    shares = (f"{count} read {kind}" for kind, count in read.most_common())
    return f"{len(layers)}: {', '.join(shares)}; {len(moves)} of them are reformats"


def _checks(checks: Sequence[Row]) -> RenderableType:
    return _grid(
        "Checks before it was written",
        ("check", "passed", "value#", "tolerance#", ""),
        [
            (
                check["name"],
                "yes" if check["passed"] else "NO",
                text.number_text(check["value"]),
                text.number_text(check["tolerance"]),
                check["detail"],
            )
            for check in checks
        ],
    )


def diagnosis_view(fields: Row) -> RenderableType:
    """The machine, the packages, and what is wrong."""
    machine = fields["machine"]
    about = [
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("instructions", " ".join(machine["flags"])),
        ("memory", f"{machine['memory_gib']} GiB"),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("INT8 weights", f"{fields['weight_bits']} bits: {fields['weight_bits_reason']}"),
    ]
    packages = [
        (
            package["name"],
            package["extra"] or "always",
            package["version"] or "-",
            package["state"],
            package["fix"],
        )
        for package in fields["packages"]
    ]
    problems = [Text(f"problem: {line}", style="bold") for line in fields["problems"]]
    return Group(
        _grid("Machine", ("", ""), about),
        _grid("Packages", ("package", "extra", "version", "state", "to install"), packages),
        *(problems or [Text("No problem found.")]),
    )
