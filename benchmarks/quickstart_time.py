"""The quickstart passes within 30 s, is faster the second time, and --help answers at once.

    python benchmarks/quickstart_time.py

Claim: after the install, `resdeploy run recipes/quickstart.toml`
ends in PASS within 30 s on two cores; the same again is faster, because it reuses everything
but the timings; `resdeploy --help` takes at most 0.3 s, and `resdeploy models` at most 0.5 s.

Method: whole processes. Each repeat takes a fresh output folder and a fresh matplotlib cache
(as on a new machine), and runs the recipe twice. `--help` runs once unmeasured, then ten times.

How to read it: `first` and `second` are the medians over the repeats; the limit of 30 s is
held against the slowest first run, and each second run against the first of its own folder.
`reused` lists the steps that a second run took from the folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    ROOT,
    CannotRunError,
    Findings,
    at_most,
    below,
    conclude,
    exactly,
    measured_resdeploy,
    median,
    parser_of,
    require_done,
    timed_resdeploy,
)

FIRST_S = 30.0
HELP_S = 0.3
MODELS_S = 0.5


def run_once(recipe: Path, out: Path) -> dict[str, Any]:
    """One whole `resdeploy run`: its time, its verdict, its steps."""
    out.mkdir(exist_ok=True)
    child = measured_resdeploy(
        "run", str(recipe), "--out", str(out), "--quiet", MPLCONFIGDIR=str(out / "matplotlib")
    )
    if child.code not in (0, 1, 3):  # the codes of a run that reached a verdict
        require_done(child)
    results = json.loads((out / "results.json").read_text())
    return {
        **child.figures(),
        "verdict": results["judgement"]["verdict"],
        "reason": results["judgement"]["reason"],
        "reused": [step["label"] for step in results["steps"] if step["reused"]],
        "done": {step["label"]: step["seconds"] for step in results["steps"] if not step["reused"]},
    }


def run_twice(recipe: Path) -> dict[str, Any]:
    """Two runs into one fresh folder."""
    with tempfile.TemporaryDirectory(prefix="resdeploy-quickstart-") as folder:
        out = Path(folder) / "out"
        return {"first": run_once(recipe, out), "second": run_once(recipe, out)}


def measure(recipe: Path, repeats: int, help_runs: int) -> Findings:
    """All runs, and what they amount to."""
    if not recipe.is_file():
        raise CannotRunError(f"{recipe} is not there")
    warm = timed_resdeploy("--help")
    helps = [timed_resdeploy("--help") for _ in range(help_runs)]
    timed_resdeploy("models")
    models = [timed_resdeploy("models") for _ in range(help_runs)]
    pairs = [run_twice(recipe) for _ in range(repeats)]
    runs = [pair[which] for pair in pairs for which in ("first", "second")]
    first = [pair["first"]["seconds"] for pair in pairs]
    second = [pair["second"]["seconds"] for pair in pairs]
    verdicts = sorted({run["verdict"] for run in runs})
    ratio = max(later / earlier for earlier, later in zip(first, second, strict=True))
    return Findings(
        settings={"recipe": recipe.name, "repeats": repeats, "help_runs": help_runs},
        figures={
            "first_median_s": median(first),
            "second_median_s": median(second),
            "help_median_s": median(helps),
            "help_unmeasured_first_s": warm,
            "help_s": helps,
            "models_median_s": median(models),
            "runs": pairs,
        },
        targets=(
            exactly("verdict of every run", "pass", ", ".join(verdicts)),
            at_most("slowest first run", FIRST_S, max(first), "s"),
            below("second run / first run, worst", 1.0, ratio),
            at_most("resdeploy --help, median", HELP_S, median(helps), "s"),
            at_most("resdeploy models, median", MODELS_S, median(models), "s"),
        ),
    )


def main() -> int:
    """Parse, measure, conclude."""
    parser = parser_of(__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "quickstart.toml")
    parser.add_argument("--repeats", type=int, default=3, help="fresh folders [default: 3]")
    parser.add_argument("--help-runs", type=int, default=10, help="[default: 10]")
    given = parser.parse_args()
    claim = "the quickstart passes within 30 s, the second run is faster, --help within 0.3 s"
    return conclude(
        "quickstart_time",
        claim,
        given.results,
        lambda: measure(given.recipe.resolve(), given.repeats, given.help_runs),
    )


if __name__ == "__main__":
    sys.exit(main())
