"""What channels were divided by, written into a graph and read back.

Equalization leaves the answers as they are and the tensors on the way not: tensor / s, channel by
channel. From the file alone s cannot be told from an error of the same form, so it is kept, as
metadata that no runtime reads: JSON of base64 of float32, tensors of equal factors sharing a row.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.errors import GraphError

Doubles = NDArray[np.float64]

KEY = "resdeploy.channel_factors"


def write_factors(model: ir.Model, factors: Mapping[str, Doubles]) -> None:
    """Note in `model` what the channels of its tensors were divided by: float64 [C] each."""
    rows: dict[str, int] = {}
    tensors = {}
    for name, row in factors.items():
        text = base64.b64encode(row.astype("<f4").tobytes()).decode()
        tensors[name] = rows.setdefault(text, len(rows))
    model.metadata_props[KEY] = json.dumps({"rows": list(rows), "tensors": tensors})


def read_factors(model: ir.Model) -> dict[str, Doubles] | None:
    """What channels were divided by, of each tensor where it is not 1; None where nothing says.

    Raises:
        GraphError: the note cannot be read.
    """
    text = model.metadata_props.get(KEY)
    if text is None:
        return None
    try:
        noted = json.loads(text)
        rows = [
            np.frombuffer(base64.b64decode(row, validate=True), "<f4").astype(np.float64)
            for row in noted["rows"]
        ]
        return {str(name): rows[index] for name, index in noted["tensors"].items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, binascii.Error) as error:
        raise GraphError(
            f"the graph's metadata {KEY} is damaged: {error}", hint="quantize the model again"
        ) from error
