"""An ONNX file and a runtime in, how much of it that runtime computes on integers out."""

from __future__ import annotations

import re
from pathlib import Path

from resdeploy.artifact import scratch_folder
from resdeploy.graph import cost
from resdeploy.graph.files import read_model, write_model
from resdeploy.pipeline.feeding import image_facts
from resdeploy.records import Manifest
from resdeploy.runtimes import RUNTIMES, Runtime
from resdeploy.table import load_target


def installed(runtime: str) -> Runtime | None:
    """The runtime of that name, if it can be imported here."""
    return next((row for row in RUNTIMES if row.name == runtime and row.is_installed()), None)


def int8_macs_share(path: Path, manifest: Manifest, runtime: str) -> float | None:
    """The share of a file's multiply-accumulates that a runtime computes on integers.

    It is read from the graph that the runtime makes of the file on this machine. None where the
    runtime is not here, or shapes are not known.

    manifest: says what images the file takes.

    Raises:
        GraphError: the runtime cannot load the file.
    """
    row = installed(runtime)
    if row is None or not row.integer_layers:
        return None
    model = read_model(path)
    cost.number_nodes(model)
    macs = {node.name: node.macs for node in cost.nodes_of(model, image_facts(manifest))}
    known = {name: count for name, count in macs.items() if count is not None}
    total = sum(known.values())
    if len(known) < len(macs) or total == 0:
        return None
    with scratch_folder() as folder:
        numbered = folder / "numbered.onnx"
        write_model(model, numbered)
        layers_of = load_target(row.integer_layers, extra=row.extra, why=f"a look at {runtime}")
        layers = layers_of(numbered)
    found = {match[0] for layer in layers if (match := re.match(cost.NUMBERED, layer))}
    return sum(known[name] for name in found & known.keys()) / total
