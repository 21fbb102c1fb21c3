"""What `models`, `show`, `predict`, `inspect` and `doctor` found in, rich tables out.

Rows come as plain dicts, as --json prints them, so that this file needs no other room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

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
    """Name, parameters in millions, MACs in 10⁹, input edge and origin."""
    return _grid(
        f"{len(rows)} models",
        ("name", "params M#", "GMACs#", "input#", "origin"),
        [
            (
                row["name"],
                f"{row['params'] / 1e6:.2f}",
                f"{row['macs'] / 1e9:.2f}",
                str(row["input_size"]),
                row["origin"],
            )
            for row in rows
        ],
    )


def layers_table(rows: Sequence[Row], *, params: int, macs: int) -> RenderableType:
    """Every layer with its cost, and the sums."""
    body = [
        (
            row["name"],
            row["kind"],
            "×".join(str(size) for size in row["output_shape"]),
            text.count_text(row["params"]),
            text.count_text(row["macs"]),
        )
        for row in rows
    ]
    body.append(("total", "", "", text.count_text(params), text.count_text(macs)))
    return _grid("Layers", ("name", "kind", "output", "params#", "MACs#"), body)


def predictions_table(rows: Sequence[Row]) -> RenderableType:
    """The likeliest classes of every image."""
    body = []
    for row in rows:
        for rank, guess in enumerate(row["top"]):
            path = row["path"] if rank == 0 else ""
            body.append((path, guess["label"], text.fraction_text(guess["probability"])))
    return _grid("Predictions", ("image", "class", "probability#"), body)


def inspection_view(fields: Row) -> RenderableType:
    """An artifact's tensors, operators, provenance and checks."""
    graph = fields["graph"]
    manifest: Row = fields["manifest"] or {}
    facts = [
        ("file", fields["path"]),
        ("sha256", fields["sha256"]),
        ("size", text.bytes_text(fields["size_bytes"])),
        ("precision", graph["precision"]),
        ("opset", str(graph["opset"])),
        ("weight elements", text.count_text(graph["params"])),
        *[(f"weights {name}", text.bytes_text(n)) for name, n in graph["bytes_by_dtype"].items()],
        *[("input", _tensor(tensor)) for tensor in graph["inputs"]],
        *[("output", _tensor(tensor)) for tensor in graph["outputs"]],
        *_provenance(manifest),
    ]
    operators = [(name, text.count_text(count)) for name, count in graph["operators"].items()]
    views: list[RenderableType] = [
        _grid("Artifact", ("", ""), facts),
        _grid(f"{graph['nodes']} nodes", ("operator", "count#"), operators),
    ]
    if manifest:
        views.append(_checks(manifest["verification"]))
    else:
        views.append(Text("No sidecar: nobody says where this file comes from."))
    return Group(*views)


def _tensor(tensor: Row) -> str:
    shape = ", ".join(str(size) for size in tensor["shape"])
    return f"{tensor['name']} {tensor['dtype']} [{shape}]"


def _provenance(manifest: Row) -> list[tuple[str, str]]:
    if not manifest:
        return []
    preprocess: Row = manifest["preprocess"] or {"not": "recorded"}
    rows = [("preprocessing", ", ".join(f"{key} {value}" for key, value in preprocess.items()))]
    if manifest["model"] is not None:
        model = manifest["model"]
        trained = "" if model["trained"] else " (not trained)"
        rows.append(("model", f"{model['reference']}, weights {model['weights']}{trained}"))
    if manifest["quantization"] is not None:
        made = manifest["quantization"]
        data = made["calibration"]["data"]
        rows.append(("quantized for", f"{made['target']}, {made['weight_bits']}-bit weights"))
        rows.append(("calibrated on", f"{data['samples']} images of {data['reference']}"))
    for step in manifest["history"]:
        tools = ", ".join(f"{name} {version}" for name, version in step["tools"].items())
        rows.append((step["step"], "; ".join((*step["notes"], tools))))
    return rows


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
