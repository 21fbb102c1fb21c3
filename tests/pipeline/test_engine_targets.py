"""Engines as targets of recipes: planned where there is a GPU, skipped or refused where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resdeploy import run
from resdeploy.engines import BACKENDS
from resdeploy.errors import EngineError, RecipeError
from resdeploy.pipeline.plan import Facts, plan_of
from resdeploy.pipeline.run import prepare
from resdeploy.pipeline.steps import Compile
from resdeploy.records import GpuFacts, TargetStatus, Verdict
from tests.pipeline.conftest import write_recipe

GPU = GpuFacts(name="NVIDIA L4", sm="8.9", memory_gib=23)
ENGINE = (
    '{{ name = "trt-{precision}", format = "engine", precision = "{precision}", '
    'runtime = "tensorrt", required = false }},'
)


def with_engine(folder: Path, precision: str = "int8-fp16", **changed: str) -> Path:
    recipe = write_recipe(folder)
    target = ENGINE.format(precision=precision)
    for old, new in changed.items():
        target = target.replace(old, new)
    recipe.write_text(recipe.read_text().replace("targets = [", f"targets = [\n  {target}"))
    return recipe


def on_a_gpu(recipe: Path) -> tuple[Facts, object]:
    """What a plan depends on, as it would be on a machine with a GPU and TensorRT."""
    plan = prepare(recipe).plan
    missing = {name: row for name, row in plan.facts.missing.items() if name != "tensorrt"}
    return replace(plan.facts, gpu=GPU, missing=missing), plan.recipe


@pytest.mark.parametrize(
    ("precision", "chain"),
    [
        ("fp32", ("export", "simplify")),
        ("fp16", ("export", "simplify", "cast")),
        ("int8", ("export", "simplify", "quantize")),
        ("int8-fp16", ("export", "simplify", "quantize", "cast")),
    ],
)
def test_an_engine_is_compiled_of_the_graph_of_its_precision(
    precision: str, chain: tuple[str, ...], tmp_path: Path
) -> None:
    facts, recipe = on_a_gpu(with_engine(tmp_path, precision))
    plan = plan_of(recipe, facts)  # type: ignore[arg-type]
    target = plan.targets[0]
    kinds = [name.partition(" ")[0] for name in target.chain]  # of two INT8 files one has more
    assert tuple(kinds) == chain
    (compiled,) = (step for step in plan.steps if isinstance(step, Compile))
    assert compiled.key == target.key
    assert compiled.backend == "tensorrt"
    other = plan_of(recipe, replace(facts, gpu=replace_gpu()))  # type: ignore[arg-type]
    assert other.targets[0].key != target.key  # an engine is for one GPU


def replace_gpu() -> GpuFacts:
    return GPU.model_copy(update={"name": "NVIDIA L40S"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_skipped_and_never_passed(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError)
    recipe = with_engine(tmp_path, **{'"tensorrt"': '"tensorrt-rtx"'})
    result = run(recipe, out=tmp_path / "out").result
    (target, *others) = result.targets
    assert target.status is TargetStatus.SKIPPED
    assert "needs a GPU" in target.reason
    assert target.path is None
    assert {other.status for other in others} == {TargetStatus.DONE}
    assert result.judgement.verdict is Verdict.PASS  # of the targets that there are
    required = tmp_path / "required"
    required.mkdir()
    changed = {'"tensorrt"': '"tensorrt-rtx"', ", required = false": ""}
    with pytest.raises(EngineError, match="needs a GPU") as raised:
        prepare(with_engine(required, **changed))
    assert "required = false" in raised.value.hint


def test_a_runtime_of_onnx_runs_no_engine(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ort does not run engine"):
        prepare(with_engine(tmp_path, **{'"tensorrt"': '"ort"'}))


def test_every_backend_has_its_runtime() -> None:
    from resdeploy.runtimes import RUNTIMES

    engines = {row.name for row in RUNTIMES if "engine" in row.formats}
    assert {row.runtime for row in BACKENDS} == engines
    assert all(RUNTIMES[row.runtime].runs_code for row in BACKENDS)
