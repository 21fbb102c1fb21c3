"""A float ONNX file and a folder of images enter; ONNX Runtime's own INT8 graph leaves.

    python benchmarks/peer_entropy.py FP32.onnx FOLDER INT8.onnx

The peer of `calibration_memory.py --peer`, which runs it in a process of its own: ONNX
Runtime's `quantize_static` with the entropy calibrator, Q/DQ pairs, U8 activations and
per-channel S8 weights, one image at a time, preprocessed as the file's sidecar says.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def inputs(model: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """The images, one at a time, under the name of the graph's input."""
    from resdeploy.artifact import open_artifact
    from resdeploy.data import source_from_reference

    manifest = open_artifact(model).manifest
    if manifest is None:
        raise SystemExit(f"{model} has no sidecar, so its preprocessing is unknown")
    for batch in source_from_reference(str(folder)).batches(manifest.preprocess, 1):
        yield {"input": batch.images}


def quantize(model: Path, folder: Path, output: Path) -> None:
    """What ONNX Runtime's documentation recommends for CNNs on a CPU."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped library
        """Hands the images over one by one."""

        def __init__(self) -> None:
            self.images = inputs(model, folder)

        def get_next(self) -> dict[str, Any] | None:
            """The next image, or None after the last."""
            return next(self.images, None)

    quantize_static(
        str(model),
        str(output),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.Entropy,
    )


def main() -> None:
    """Parse, quantize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    quantize(given.model, given.folder, given.output)


if __name__ == "__main__":
    main()
