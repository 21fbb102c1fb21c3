"""A float ONNX file, a folder of images and a method enter; a table and its ranges are made.

    python benchmarks/our_calibrate.py FP32.onnx FOLDER METHOD

What `calibration_memory.py` holds against `plain_pass.py`: calibration alone, without what
`quantize` does with the ranges. Prints how many seconds it took, imports left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def run(model: Path, folder: str, method: str) -> float:
    """One pass over the images and a range for every tensor; the seconds it took."""
    from resdeploy.artifact import open_artifact
    from resdeploy.contracts import U8
    from resdeploy.data import source_from_reference
    from resdeploy.measure.machine import machine_facts
    from resdeploy.pipeline.int8.calibration import table_for
    from resdeploy.quantization import METHODS
    from resdeploy.quantization.histogram import histogram_of
    from resdeploy.table import load_target

    range_of = load_target(METHODS[method].target, extra="", why="calibrating")
    start = time.perf_counter()
    source = open_artifact(model)
    if source.manifest is None:
        raise SystemExit(f"{model} has no sidecar, so its preprocessing is unknown")
    data = source_from_reference(folder)
    given = (source, source.manifest, source.manifest.preprocess, data)
    table = table_for(*given, threads=machine_facts().cores, progress=lambda rows, *_: rows)
    for found in table.tensors.values():
        range_of(histogram_of(found), U8)
    return time.perf_counter() - start


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder")
    parser.add_argument("method")
    given = parser.parse_args()
    print(json.dumps({"seconds": run(given.model, given.folder, given.method)}))


if __name__ == "__main__":
    main()
