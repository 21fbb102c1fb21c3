"""A float ONNX file and a folder of images enter; a calibration table of ours leaves.

    python benchmarks/our_calibrate.py FP32.onnx FOLDER TABLE

What `calibration_memory.py` holds against `plain_pass.py`: the pass over the images alone, without
what `quantize` does with the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def run(model: Path, folder: str, table: Path) -> None:
    """One pass, and the table written."""
    from resdeploy.artifact import open_artifact
    from resdeploy.data import source_from_reference
    from resdeploy.measure.machine import machine_facts
    from resdeploy.pipeline.int8.calibration import table_for
    from resdeploy.quantization.table import write_table

    source = open_artifact(model)
    if source.manifest is None:
        raise SystemExit(f"{model} has no sidecar, so its preprocessing is unknown")
    data = source_from_reference(folder)
    given = (source, source.manifest, source.manifest.preprocess, data)
    found = table_for(*given, threads=machine_facts().cores, progress=lambda rows, *_: rows)
    write_table(found, table)


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder")
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    run(given.model, given.folder, given.table)


if __name__ == "__main__":
    main()
