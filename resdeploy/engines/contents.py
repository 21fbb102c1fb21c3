"""An engine in, what is known of it without loading it out."""

from __future__ import annotations

from pathlib import Path

from resdeploy.artifact import read_document, sidecar_path
from resdeploy.engines.header import plan_version
from resdeploy.errors import EngineError
from resdeploy.records import EngineLayer, GraphSummary, Manifest, NodeFacts, TensorFacts


def contents_of_engine(path: Path, images: TensorFacts | None = None) -> GraphSummary:
    """What the header and the sidecar say; layers only if the machine that built it had a GPU.

    Raises:
        EngineError: it does not begin like an engine.
    """
    if plan_version(path) is None:
        raise EngineError(f"{path} does not begin like an engine", hint="it is damaged: build it")
    sidecar = sidecar_path(path)
    manifest = read_document(sidecar, Manifest) if sidecar.is_file() else None
    facts = None if manifest is None else manifest.engine
    layers = () if facts is None or facts.layers is None else facts.layers
    summary = GraphSummary(
        opset=0,
        inputs=() if manifest is None else manifest.inputs,
        outputs=() if manifest is None else manifest.outputs,
        nodes=len(layers),
        operators={},
        params=0 if manifest is None or manifest.model is None else manifest.model.params,
        bytes_by_dtype={},
        precision="" if manifest is None else manifest.precision,
    )
    return summary.with_nodes([_node(layer) for layer in layers]) if layers else summary


def _node(layer: EngineLayer) -> NodeFacts:
    kinds = sorted(set(filter(None, layer.inputs)))
    return NodeFacts(
        name=layer.name, operator=layer.kind or "layer", precision=" ".join(kinds), macs=layer.macs
    )
