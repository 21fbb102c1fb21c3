"""A float ONNX file and a folder of images enter; they are run once, one by one, and that is all.

    python benchmarks/plain_pass.py FP32.onnx FOLDER

What `calibration_memory.py` holds calibration against: the images are read, decoded and
preprocessed as `quantize` does it, and go through ONNX Runtime with the threads it takes. Prints
how many seconds it took, imports left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def run(model: Path, folder: str) -> float:
    """One inference for each image; the seconds it took."""
    from resdeploy.artifact import open_artifact
    from resdeploy.data import source_from_reference
    from resdeploy.measure.machine import machine_facts
    from resdeploy.runtimes import OrtRunner

    start = time.perf_counter()
    manifest = open_artifact(model).manifest
    if manifest is None:
        raise SystemExit(f"{model} has no sidecar, so its preprocessing is unknown")
    with OrtRunner(model, threads=machine_facts().cores) as runner:
        for batch in source_from_reference(folder).batches(manifest.preprocess, 1):
            runner.run(batch.images)
    return time.perf_counter() - start


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder")
    given = parser.parse_args()
    print(json.dumps({"seconds": run(given.model, given.folder)}))


if __name__ == "__main__":
    main()
