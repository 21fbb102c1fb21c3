"""One variant of every kind of ResNet becomes a verified file of every format and precision.

    python benchmarks/export_formats.py [--variants NAME ...]

Claim: every file is written, and every check in its sidecar passed: ONNX in float32, float16
and INT8, TorchScript, and PyTorch's pt2.

Method: `resdeploy export NAME` with --format and --precision, or `resdeploy quantize NAME --data
synthetic:8`, with seeded random weights at the variant's own input size: each a whole process
in an empty folder, verification and simplification included. The package's bytecode is there,
as it is where it is installed. What is said of a file is what its sidecar says, once its bytes
are found to be those the sidecar was written for; checks are counted with those of the files
it was made from. Nothing is compared a second time here, as `family_export.py` does.

How to read it: a difference is a share of the largest |logit|. That of float32 files is from
eager PyTorch. That of float16 is from the float32 file it was cast from, with every value
rounded to float16, as a GPU stores them. INT8 is held against its float32 file too, on the
eight images of noise that it was calibrated on: decibels of signal to noise, of random weights,
which say that the graph is sound and not how good a trained model will be. Nodes are as the
sidecar counts them; of INT8 it says how many convolutions and additions ONNX Runtime runs on
integers.
"""

from __future__ import annotations

import compileall
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import Findings, Target, at_least, at_most, conclude, exactly, parser_of
from common import measured_resdeploy as measured

if TYPE_CHECKING:
    from resdeploy.records import HistoryStep, Manifest

NAME = "export_formats"

# One of each kind, from the first one on.
CHOSEN = (
    "resnet18",
    "resnet50_v1",
    "resnet50",
    "resnet50d",
    "resnext50_32x4d",
    "seresnet50",
    "skresnet34",
    "resnest26d",
    "res2net50_26w_4s",
    "resnetv2_50",
    "resnetv2_50x1_bit",
    "resnet56",
    "resnet18_paddle",
)

# Of which checks the figures are, by the first letters of their names.
AGREES = "agreement-batch-"
ROUNDED = "cast.rounded.agreement-batch-"
SQNR = "quantize.sqnr-db"


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of file.

    check: what holds it against its source. limit: how far apart they may be.
    """

    name: str
    words: str
    check: str
    limit: float


FORMS = (
    Form("onnx fp32", "export --format onnx", AGREES, 1e-4),
    Form("onnx fp16", "export --format onnx --precision fp16", ROUNDED, 2e-2),
    Form("onnx int8", "quantize --data synthetic:8", SQNR, 12.0),
    Form("torchscript", "export --format torchscript", AGREES, 1e-4),
    Form("pt2", "export --format pt2", AGREES, 1e-4),
)

Line = dict[str, Any]
Lines = dict[str, dict[str, Line]]  # by variant, then by form


def made(name: str, form: Form) -> Line:
    """One file: made, looked at, deleted."""
    from resdeploy.artifact import open_artifact

    command, *options = form.words.split()
    words = (command, name, *options, "--quiet")
    with tempfile.TemporaryDirectory(prefix="resdeploy-bench-") as scratch:
        folder = Path(scratch)
        child = measured(*words, cwd=folder, PYTHONDONTWRITEBYTECODE="")  # as if it were not set
        line: Line = {"seconds": child.seconds, "peak_bytes": child.most_bytes}
        if child.code != 0:
            said = [text for text in child.stderr.splitlines() if text.startswith("error:")]
            return {**line, "reason": said[0] if said else child.stderr[-500:]}
        manifest = open_artifact(folder / child.stdout.strip()).manifest
        if manifest is None:
            return {**line, "reason": "error: there is no sidecar"}
        return {**line, **facts_of(manifest, form)}


def facts_of(manifest: Manifest, form: Form) -> Line:
    """What a sidecar says."""
    from resdeploy.formats import FORMATS

    steps = {step.step: step for step in manifest.history}
    checks, quantized = manifest.verification, manifest.quantization
    return {
        "checks": len(checks),
        "failed_checks": [check.name for check in checks if not check.passed],
        **distance(manifest, form),
        "size_bytes": manifest.size_bytes,
        "nodes": manifest.history[-1].nodes,
        "int8_macs_share": quantized.int8_macs_share if quantized else None,
        "exporter": notes_of(steps["export"], besides=FORMATS[manifest.format].note),
        "simplifier": notes_of(steps["simplify"]) if "simplify" in steps else [],
    }


def notes_of(step: HistoryStep, besides: str = "") -> list[str]:
    """What was noted, but for one note; where a pass left many nodes alone, how many."""
    left = re.compile(r"(\S+ left) .*")
    found = Counter(left.sub(r"\1", note) for note in step.notes if note != besides)
    return [
        f"{note} {count}" if note.endswith(" left") else note.removeprefix("exporter ")
        for note, count in found.items()
    ]


def distance(manifest: Manifest, form: Form) -> dict[str, float]:
    """How far the file is from what it was made from, in the unit of its form.

    A check's tolerance is the product's limit times the largest |logit|.
    """
    from resdeploy.measure.verify import EXPORT, FP16

    checks = [check for check in manifest.verification if check.name.startswith(form.check)]
    if form.check == SQNR:
        return {"sqnr_db": min(check.value for check in checks)}
    limit = (FP16 if manifest.precision == "fp16" else EXPORT).limit
    return {"difference": max(check.value / check.tolerance * limit for check in checks)}


def measure(results: Path, names: list[str]) -> Findings:
    """A line for every file, and whether they all hold."""
    import resdeploy
    from resdeploy.models.family.variants import VARIANTS

    rows = [VARIANTS[name] for name in names]
    for folder in resdeploy.__path__:
        compileall.compile_dir(folder, quiet=2)
    lines: Lines = {name: {} for name in names}
    for row in rows:
        for form in FORMS:
            line = {"family": row.family, "params": row.params, **made(row.name, form)}
            lines[row.name][form.name] = line
            print(row.name, form.name, json.dumps(line), file=sys.stderr, flush=True)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{NAME}.md").write_text(tables(lines))
    return Findings(
        settings={"commands": {form.name: form.words for form in FORMS}},
        figures=dict(lines),
        targets=tuple(targets(lines)),
    )


def targets(lines: Lines) -> Iterator[Target]:
    """Every file written, with every check passed, and the farthest of each kind."""
    files = {f"{name} {form}": line for name in lines for form, line in lines[name].items()}
    failed = [file for file, line in files.items() if "reason" in line]
    broken = [file for file, line in files.items() if line.get("failed_checks")]
    yield exactly("kinds of ResNet measured", len(CHOSEN), len(lines.keys() & set(CHOSEN)))
    yield exactly("files not written", "", ", ".join(failed))
    yield exactly("files of which a check failed", "", ", ".join(broken))
    for form in FORMS:
        done = [row[form.name] for row in lines.values() if "reason" not in row[form.name]]
        if form.check == SQNR:
            least = min((line["sqnr_db"] for line in done), default=float("nan"))
            yield at_least(f"{form.name}: least signal to noise", form.limit, least, "dB")
        else:
            most = max((line["difference"] for line in done), default=float("nan"))
            yield at_most(f"{form.name}: largest difference / |logit|", form.limit, most)


def tables(lines: Lines) -> str:
    """The lines in Markdown, a table for each form."""
    text = [
        f"One variant of every kind of ResNet in every format: benchmarks/{NAME}.py",
        "",
        "A difference is a share of the largest |logit|: of float32 files from eager PyTorch,",
        "of float16, rounded as on a GPU, from the float32 file; INT8 has decibels instead.",
    ]
    for form in FORMS:
        text += ["", f"## {form.name}", "", f"`resdeploy {form.words}`", ""]
        text += table(form, {name: row[form.name] for name, row in lines.items()})
    return "\n".join(text) + "\n"


def table(form: Form, lines: dict[str, Line]) -> list[str]:
    """The lines of one form in Markdown, without columns that none of them has."""
    apart = "SQNR (dB)" if form.check == SQNR else "difference"
    numbers = ("seconds", "MB", "checks passed", apart, "nodes")
    head = ["name", "family", *numbers, "exporter", "simplifier", "on integers"]
    rule = ["---"] * 2 + ["---:"] * len(numbers) + ["---"] * 3
    rows = [
        [name, line["family"], f"{line['seconds']:.1f}", *cells_of(line)]
        for name, line in lines.items()
    ]
    used = [column for column in zip(head, rule, *rows, strict=True) if any(column[2:])]
    return [f"| {' | '.join(row)} |" for row in zip(*used, strict=True)]


def cells_of(line: Line) -> list[str]:
    """The cells of a file after its seconds."""
    if "reason" in line:
        return ["", "", "", "", line["reason"].replace("|", "/"), "", ""]
    checks = line["checks"]
    return [
        f"{line['size_bytes'] / 1e6:.2f}",
        f"{checks - len(line['failed_checks'])}/{checks}",
        f"{line['sqnr_db']:.1f}" if "sqnr_db" in line else f"{line['difference']:.1e}",
        "" if line["nodes"] is None else str(line["nodes"]),
        *("; ".join(line[key]).replace("|", "/") for key in ("exporter", "simplifier")),
        "" if line["int8_macs_share"] is None else f"{line['int8_macs_share']:.0%} of the MACs",
    ]


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--variants", nargs="+", default=list(CHOSEN), metavar="NAME")
    given = parser.parse_args()
    claim = "a variant of every kind of ResNet becomes a verified file of every format"
    return conclude(NAME, claim, given.results, lambda: measure(given.results, given.variants))


if __name__ == "__main__":
    sys.exit(main())
