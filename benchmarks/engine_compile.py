"""Every kind of ResNet, in every precision and with every kind of profile, becomes an engine.

    python benchmarks/engine_compile.py [--variants NAME ...]

Claim: TensorRT-RTX compiles a variant of every kind of block in float32, float16, INT8 and INT8
with float16, for a fixed batch, a dynamic one and two profiles; every check of what came of it
holds; and an engine of resnet50 is under 0.6 of the float32 one's size in float16, and under 0.35
in INT8 with float16, which is what `trt --int8` makes. None of them is run: no GPU is needed.

Method: each variant is exported with seeded random weights, its INT8 form calibrated on synthetic
images without what costs time and moves no pair (`--no-equalize`, `--no-round-weights`,
`--no-correct-bias`), and cast. Each ONNX file is then compiled by the product's own function for
each kind of profile, by a process of its own, whose start is in the seconds.

How to read it: seconds are of one compilation; sizes are those of the engine alone. An engine has
some kernels beside its weights, which is much of a small net's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import CannotRunError, Findings, Target, below, conclude, exactly, parser_of

NAME = "engine_compile"
BACKEND = "rtx"

# One of each kind of block, and resnet50, of which sizes are asked.
CHOSEN = (
    "resnet18",
    "resnet26",
    "seresnext26d_32x4d",
    "resnet18d",
    "seresnet18",
    "ecaresnet26t",
    "skresnet18",
    "resnest14d",
    "res2net50_26w_4s",
    "resnetv2_18",
    "resnetv2_50x1_bit",
    "resnetblur18",
    "resnet20",
    "resnet50",
)
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
PROFILES = {"static": ("1:1:1",), "dynamic": ("1:8:32",), "two profiles": ("1:1:4", "8:16:32")}
SHARES = {"fp16": 0.6, "int8-fp16": 0.35}  # the latter is what --int8 makes
OF = "resnet50"

Lines = dict[str, dict[str, dict[str, Any]]]  # by variant, then by precision and profile


def sources_of(name: str, folder: Path) -> dict[str, Path]:
    """The ONNX file of a variant in each precision."""
    from resdeploy import cast, export, quantize
    from resdeploy.records import QuantizeOptions

    quick = QuantizeOptions(equalize=False, round_weights=False, correct_bias=False)
    floats = export(name, output=folder / "fp32.onnx").path
    int8 = quantize(
        str(floats), data="synthetic:8", target="tensorrt", how=quick, output=folder / "int8.onnx"
    ).artifact.path
    return {
        "fp32": floats,
        "fp16": cast(floats, output=folder / "fp16.onnx").path,
        "int8": int8,
        "int8-fp16": cast(int8, output=folder / "int8-fp16.onnx").path,
    }


def compiled(source: Path, profiles: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """One engine: seconds, bytes, and its checks."""
    from resdeploy import trt
    from resdeploy.cli.export import batch_profile
    from resdeploy.errors import ResdeployError
    from resdeploy.records import EngineOptions

    options = EngineOptions(profiles=tuple(batch_profile(text) for text in profiles))
    start = time.perf_counter()
    try:
        made = trt(str(source), backend=BACKEND, engine=options, output=folder / "x.engine")
    except ResdeployError as error:
        return {"failed": str(error)}
    manifest = made.artifact.manifest
    assert manifest is not None
    assert manifest.engine is not None
    checks = [check for check in manifest.verification if check.name.startswith("compile.")]
    return {
        "seconds": time.perf_counter() - start,
        "bytes": manifest.size_bytes,
        "checks": [check.model_dump(mode="json") for check in checks],
        "warnings": list(manifest.engine.warnings),
        "version": manifest.engine.version,
    }


def measure(results: Path, names: list[str]) -> Findings:
    """A line for every engine."""
    from resdeploy.engines import BACKENDS

    if not BACKENDS[BACKEND].is_installed():
        raise CannotRunError("TensorRT-RTX is not installed: pip install -e '.[cpu,rtx]'")
    lines: Lines = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="resdeploy-engines-") as scratch:
            folder = Path(scratch)
            sources = sources_of(name, folder)
            lines[name] = {
                f"{precision}, {kind}": compiled(sources[precision], profiles, folder)
                for precision in PRECISIONS
                for kind, profiles in PROFILES.items()
            }
        print(name, " ".join(cell(line) for line in lines[name].values()), file=sys.stderr)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{NAME}.md").write_text(table(lines))
    return Findings(
        settings={"backend": BACKEND, "profiles": PROFILES, "variants": names},
        figures=dict(lines),
        targets=tuple(targets(lines)),
    )


def targets(lines: Lines) -> Iterator[Target]:
    """Every engine made, without a warning, and small enough."""
    engines = {f"{name} {kind}": line for name in lines for kind, line in lines[name].items()}
    failed = [name for name, line in engines.items() if "failed" in line]
    warned = [name for name, line in engines.items() if unexpected(line)]
    yield exactly("engines", len(CHOSEN) * len(PRECISIONS) * len(PROFILES), len(engines))
    yield exactly("engines not made", "", ", ".join(failed))
    yield exactly("engines with warnings", "", ", ".join(warned))
    whole = lines.get(OF, {})
    for precision, share in SHARES.items():
        for kind in PROFILES:
            floats = whole.get(f"fp32, {kind}", {}).get("bytes", 0)
            own = whole.get(f"{precision}, {kind}", {}).get("bytes")
            found = own / floats if own and floats else float("nan")
            yield below(f"{OF}, {kind}: {precision} / fp32, bytes", share, found)


def unexpected(line: dict[str, Any]) -> list[str]:
    """Warnings besides those of float16 scales, which are used as float32."""
    return [text for text in line.get("warnings", ()) if "scales to fp32" not in text]


def table(lines: Lines) -> str:
    """The lines in Markdown."""
    kinds = [f"{precision}, {kind}" for precision in PRECISIONS for kind in PROFILES]
    text = [
        f"Engines of TensorRT-RTX, MB and seconds: benchmarks/{NAME}.py",
        "",
        f"| | {' | '.join(kinds)} |",
        f"|---|{'---:|' * len(kinds)}",
    ]
    for name, row in lines.items():
        text.append(f"| {name} | {' | '.join(cell(row[kind]) for kind in kinds)} |")
    return "\n".join(text) + "\n"


def cell(line: dict[str, Any]) -> str:
    """An engine in a few characters."""
    if "failed" in line:
        return "failed"
    return f"{line['bytes'] / 1e6:.2f} MB {line['seconds']:.1f} s"


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--variants", nargs="+", default=list(CHOSEN), metavar="NAME")
    given = parser.parse_args()
    claim = "every kind of ResNet compiles in every precision, and engines have its size"
    return conclude(NAME, claim, given.results, lambda: measure(given.results, given.variants))


if __name__ == "__main__":
    sys.exit(main())
