"""Every variant of the family exports to ONNX and answers there as in eager PyTorch.

    python benchmarks/family_export.py [--only PATTERN ...] [--again]

Claim: every variant exports, and ONNX Runtime agrees with eager within
1e-4 of the largest logit; those that cannot be exported are named with the reason.

Method: `resdeploy export NAME` with seeded random weights at the variant's own input size is
a whole process in an empty folder, verification and simplification included: its seconds and
the peak memory of it and its children. Nodes are counted by the sidecar, after the exporter
and after the simplifier. The comparison is this script's own, not the product's: a plain ONNX
Runtime session and the eager model on two images of seeded normal noise that the product's
own verification does not use. Variants go from the smallest to the largest, one at a time;
what is already in the results file is kept, so that a run of most of an hour can be cut into
pieces, and --again measures those anew that --only names. Each line says with which PyTorch and
ONNX Runtime it was measured.

How to read it: float32 sums in another order differ by about 1e-6 of the largest logit, a
wrong graph by orders of magnitude more. Group norms and standardised weights sum most.
Seconds include 2 s of PyTorch's import, and the inference of ten images or so for the checks,
which dominates in large models.
"""

from __future__ import annotations

import json
import sys
import tempfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import Findings, at_most, conclude, exactly, measured_resdeploy, parser_of

NAME = "family_export"
PART = f"{NAME}.json.part"
PACKAGES = ("torch", "onnxruntime")
LIMIT = 1e-4  # of the largest logit
BATCH = 2
SEED = 20_240  # any, as long as the product does not use it

# One ONNX file holds less than 2 GB.
TOO_LARGE = ("resnetv2_152x4_bit",)


def difference(path: Path, name: str) -> dict[str, float]:
    """Largest |ONNX Runtime − eager|, and the largest |logit|, without the product's runners."""
    import numpy as np
    import onnxruntime
    import torch

    from resdeploy.models.reference import resolve

    loaded = resolve(name, None)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = loaded.preprocess.size
    generator = np.random.default_rng(SEED)
    images = generator.standard_normal((BATCH, 3, size, size), dtype=np.float32)
    with torch.inference_mode():
        expected = loaded.module(torch.from_numpy(images)).numpy()
    got = session.run(["logits"], {"input": images})[0]
    return {
        "max_abs": float(np.abs(got - expected).max()),
        "max_abs_logit": float(np.abs(expected).max()),
    }


def exported(name: str) -> dict[str, Any]:
    """One line of the table."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-bench-") as scratch:
        child = measured_resdeploy("export", name, "--json", cwd=Path(scratch))
        line: dict[str, Any] = {
            "versions": {package: version(package) for package in PACKAGES},
            "seconds": child.seconds,
            "peak_bytes": child.most_bytes,
        }
        if child.code != 0:
            said = [text for text in child.stderr.splitlines() if text.startswith("error:")]
            return {**line, "reason": said[-1] if said else child.stderr[-500:]}
        document = json.loads(child.stdout)
        nodes = {step["step"]: step["nodes"] for step in document["history"]}
        return {
            **line,
            "size_bytes": document["size_bytes"],
            "nodes_exported": nodes["export"],
            "nodes_simplified": nodes["simplify"],
            **difference(Path(scratch) / f"{name}.onnx", name),
        }


def known(results: Path) -> dict[str, Any]:
    """The lines of an earlier run, whole or cut short."""
    whole, part = results / f"{NAME}.json", results / PART
    if part.exists():
        return json.loads(part.read_text())
    if not whole.exists():
        return {}
    document = json.loads(whole.read_text())
    # Lines of before they had versions are all of one run.
    versions = {package: document["machine"]["versions"][package] for package in PACKAGES}
    return {name: {"versions": versions, **line} for name, line in document["figures"].items()}


def keep(results: Path, lines: dict[str, Any]) -> None:
    """Write down what is known so far."""
    results.mkdir(parents=True, exist_ok=True)
    (results / PART).write_text(json.dumps(lines))


def measure(results: Path, patterns: list[str], *, again: bool) -> Findings:
    """A line for every variant, and whether they all hold."""
    from resdeploy.models.family.variants import VARIANTS

    rows = sorted(VARIANTS, key=lambda row: (row.params, row.name))
    chosen = [row for row in rows if any(fnmatchcase(row.name, each) for each in patterns)]
    lines = known(results)
    if again:
        lines = {name: lines[name] for name in lines.keys() - {row.name for row in chosen}}
    for row in chosen:
        if row.name in lines:
            continue
        lines[row.name] = {"family": row.family, "params": row.params, **exported(row.name)}
        keep(results, lines)
        print(row.name, json.dumps(lines[row.name]), file=sys.stderr, flush=True)
    figures = {row.name: lines[row.name] for row in rows if row.name in lines}
    (results / f"{NAME}.md").write_text(table(figures))
    (results / PART).unlink(missing_ok=True)
    done = {name: line for name, line in figures.items() if "max_abs" in line}
    failed = ", ".join(name for name in figures if name not in done)
    worst = max((line["max_abs"] / line["max_abs_logit"] for line in done.values()), default=1)
    return Findings(
        settings={"batch": BATCH, "seed": SEED, "limit": LIMIT},
        figures=figures,
        targets=(
            exactly("variants measured", len(rows), len(figures)),
            exactly("variants not exported", ", ".join(TOO_LARGE), failed),
            at_most("largest |ort - eager| / largest |logit|", LIMIT, worst),
        ),
    )


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The lines in Markdown."""
    head = (
        "name",
        "family",
        "params (M)",
        "seconds",
        "peak (GB)",
        "nodes",
        "simplified",
        "difference",
    )
    lines = [
        "Every variant exported to ONNX: benchmarks/family_export.py",
        "",
        "The difference is the largest |ONNX Runtime − eager| over the largest |logit|.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * 2}{'---:|' * (len(head) - 2)}",
    ]
    for name, line in figures.items():
        cells = [name, line["family"], f"{line['params'] / 1e6:.2f}"]
        cells += [f"{line['seconds']:.1f}", f"{line['peak_bytes'] / 1e9:.2f}"]
        if "max_abs" in line:
            share = line["max_abs"] / line["max_abs_logit"]
            cells += [str(line["nodes_exported"]), str(line["nodes_simplified"]), f"{share:.1e}"]
        else:
            cells += ["", "", line["reason"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of names")
    parser.add_argument("--again", action="store_true", help="measure what --only names anew")
    given = parser.parse_args()
    claim = "every variant exports to ONNX and agrees with eager PyTorch"
    return conclude(
        NAME, claim, given.results, lambda: measure(given.results, given.only, again=given.again)
    )


if __name__ == "__main__":
    sys.exit(main())
