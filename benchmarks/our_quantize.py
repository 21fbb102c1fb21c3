"""A float ONNX file of ours and a folder of images enter; the INT8 graph of resdeploy leaves.

    python benchmarks/our_quantize.py FP32.onnx DATA INT8.onnx SAMPLES '{"target": "ort-cpu"}'

The counterpart of `peer_quantize.py`: a process of its own, so that time and memory compare. The
last word holds the choices, in JSON; what it does not name is as the product has it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def quantize(model: Path, data: str, output: Path, samples: int, choices: dict[str, Any]) -> None:
    """The one call of the product that the INT8 benchmarks make."""
    import resdeploy
    from resdeploy.records import QuantizeOptions

    target = choices.get("target", "ort-cpu")
    how = QuantizeOptions(**{name: value for name, value in choices.items() if name != "target"})
    resdeploy.quantize(
        str(model), data=data, samples=samples, output=output, target=target, how=how
    )


def main() -> None:
    """Parse, quantize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("samples", type=int)
    parser.add_argument("choices", type=json.loads)
    given = parser.parse_args()
    quantize(given.model, given.data, given.output, given.samples, given.choices)


if __name__ == "__main__":
    main()
