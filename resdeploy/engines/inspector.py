"""An engine in, its layers out, as its inspector shows them; that takes a GPU.

The JSON of TensorRT 10 has one field "Format/Datatype" for each tensor, that of 11 has the type
apart. A field that is not there is empty here, never guessed.

Source: TensorRT 11.3, "IEngineInspector: 10.x to 11.x".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from resdeploy.engines.api import Api
from resdeploy.records import EngineLayer

# As both versions write types, within longer words such as "Channel major FP16 format".
_TYPES = {
    "int8": "int8", "fp16": "fp16", "half": "fp16", "bf16": "bf16", "fp32": "fp32",
    "float": "fp32", "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8",
}  # fmt: skip


# How a layer's metadata tells the nodes of the ONNX file that it computes.
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def layers_of(api: Api, logger: Any, plan: bytes) -> tuple[EngineLayer, ...] | None:
    """The layers of an engine that this machine can load; None where it cannot."""
    engine = api.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return layers_from(inspector.get_engine_information(api.LayerInformationFormat.JSON))


def layers_from(text: str) -> tuple[EngineLayer, ...]:
    """The layers in an inspector's JSON, of either version.

    Without detailed profiling they are names alone.
    """
    found = json.loads(text).get("Layers", [])
    return tuple(
        EngineLayer(name=layer, kind="") if isinstance(layer, str) else _layer(layer)
        for layer in found
    )


def with_macs(
    layers: Sequence[EngineLayer], known: Mapping[str, int | None]
) -> tuple[EngineLayer, ...]:
    """Layers with the multiply-accumulates of the nodes that they say they compute.

    known: of the nodes of the ONNX file, by name.
    """

    def macs(row: EngineLayer) -> int | None:
        if "reformat" in row.kind.lower():  # it copies, and is of no node
            return 0
        found = [known.get(name) for name in row.nodes]
        return None if not found or None in found else sum(filter(None, found))

    return tuple(row.model_copy(update={"macs": macs(row)}) for row in layers)


def _layer(fields: dict[str, Any]) -> EngineLayer:
    return EngineLayer(
        name=str(fields.get("Name", "")),
        kind=str(fields.get("LayerType", "")),
        inputs=tuple(_type(tensor) for tensor in fields.get("Inputs", [])),
        outputs=tuple(_type(tensor) for tensor in fields.get("Outputs", [])),
        tactic=str(fields.get("TacticName", "")),
        nodes=tuple(_NODE.findall(str(fields.get("Metadata", "")))),
    )


def _type(tensor: dict[str, Any]) -> str:
    """The type of a tensor; empty where no field names one that is known."""
    said = str(
        tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype", "")
    )
    words = said.lower().replace(",", " ").replace(":", " ").split()
    return next((_TYPES[word] for word in words if word in _TYPES), "")
