"""An exported resnet50 answers in ONNX Runtime as it does in eager PyTorch, within 1e-4.

    python benchmarks/export_agreement.py [--weights FILE]

Claim: `resdeploy export resnet50 --format onnx` writes resnet50.onnx
and resnet50.onnx.json, `--json` names the artifact, its sha256 and the verification, and ONNX
Runtime agrees with eager within 1e-4 at batch 1 and 5.

Method: the export is a whole process in an empty folder. The comparison is this script's own,
not the product's: a plain ONNX Runtime session and the eager model on seeded normal noise
that the product's own verification does not use; max |difference| over all logits, absolute.
Without --weights the model is resdeploy's seeded random one, whose logits are of the size of
a trained model's (`max_abs_logit`).

How to read it: float32 sums in another order differ by about 1e-6 to 1e-5, a wrong graph by
orders of magnitude more. Seconds and peak memory are of the whole
export, PyTorch's import and both verifications included; they have no target.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    Findings,
    Target,
    at_most,
    conclude,
    exactly,
    measured_resdeploy,
    parser_of,
    require_done,
)

LIMIT = 1e-4
BATCHES = (1, 5)
SEED = 20_240  # any, as long as the product does not use it


def differences(path: Path, reference: str, weights: str) -> dict[str, dict[str, float]]:
    """Largest |ONNX Runtime − eager| by batch size, without the product's runners."""
    import numpy as np
    import onnxruntime
    import torch

    from resdeploy.models.reference import resolve

    loaded = resolve(reference, weights)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shape = (len(loaded.preprocess.channels), loaded.preprocess.size, loaded.preprocess.size)
    found = {}
    for batch in BATCHES:
        generator = np.random.default_rng(SEED + batch)
        images = generator.standard_normal((batch, *shape), dtype=np.float32)
        with torch.inference_mode():
            expected = loaded.module(torch.from_numpy(images)).numpy()
        got = session.run(["logits"], {"input": images})[0]
        found[str(batch)] = {
            "max_abs": float(np.abs(got - expected).max()),
            "max_abs_logit": float(np.abs(expected).max()),
        }
    return found


def document_targets(document: dict[str, Any], folder: Path) -> tuple[Target, ...]:
    """What `--json` says, held against the files in the folder."""
    path = folder / f"{document['name']}.onnx"
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    same = document["sha256"] == digest
    stated_digest = "the file's" if same else f"{document['sha256']}, the file's is {digest}"
    failed = [check["name"] for check in document["verification"] if not check["passed"]]
    stated = "passed" if document["verification"] and not failed else f"failed: {failed}"
    written = sorted(item.name for item in folder.iterdir())
    return (
        exactly("files written", f"{path.name}, {path.name}.json", ", ".join(written)),
        exactly("sha256 in --json", "the file's", stated_digest),
        exactly("verification in --json", "passed", stated),
    )


def measure(model: str, weights: str | None) -> Findings:
    """Export in a process, compare here."""
    words = ["export", model, "--format", "onnx", "--json"]
    if weights is not None:
        words += ["--weights", weights]
    with tempfile.TemporaryDirectory(prefix="resdeploy-export-") as name:
        folder = Path(name)
        child = require_done(measured_resdeploy(*words, cwd=folder))
        document = json.loads(child.stdout)
        targets = document_targets(document, folder)
        facts = document["model"]
        found = differences(folder / f"{model}.onnx", facts["reference"], facts["weights"])
    return Findings(
        settings={"model": model, "weights": facts["weights"], "seed": SEED, "batches": BATCHES},
        figures={
            "export": {**child.figures(), "size_bytes": document["size_bytes"]},
            "agreement": found,
            "verification": document["verification"],
        },
        targets=(
            *targets,
            *(
                at_most(f"max |ort - eager|, batch {batch}", LIMIT, found[str(batch)]["max_abs"])
                for batch in BATCHES
            ),
        ),
    )


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="resnet50", help="[default: resnet50]")
    parser.add_argument("--weights", help="a checkpoint [default: seeded random weights]")
    given = parser.parse_args()
    weights = given.weights
    if weights is not None and Path(weights).exists():
        weights = str(Path(weights).resolve())
    claim = "an exported resnet50 agrees with eager PyTorch within 1e-4 at batch 1 and 5"
    return conclude("export_agreement", claim, given.results, lambda: measure(given.model, weights))


if __name__ == "__main__":
    sys.exit(main())
