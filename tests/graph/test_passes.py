"""Every pass on a graph in ONNX text: what it changed, what is left, and the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.graph.passes import PASSES, apply_passes
from resdeploy.graph.passes.clean import clean
from resdeploy.graph.passes.facts import PassFacts
from resdeploy.graph.passes.fold_batchnorm import fold_batchnorm
from resdeploy.graph.passes.fold_constants import fold_constants
from resdeploy.graph.passes.mean_to_pool import mean_to_pool
from resdeploy.graph.passes.share_constants import share_constants
from tests.graph import tools

NORM = {
    "gamma": tools.noise(6, seed=1),
    "beta": tools.noise(6, seed=2),
    "mean": tools.noise(6, seed=3),
    "variance": np.abs(tools.noise(6, seed=4)) + 0.1,
}
WEIGHT = {"w": tools.noise(6, 4, 3, 3, seed=5) / 6}
BIAS = {"b": tools.noise(6, seed=6)}
CONV = "a = Conv<pads=[1,1,1,1]>(x, w{bias})"
FOLD = "BatchNormalization<epsilon=0.01>(a, gamma, beta, mean, variance)"
IMAGES = "float[n,6,8,8] y"
AXES = {"axes": np.array([2, 3])}
LAST_AXES = {"axes": np.array([-1, -2])}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph, the pass, and the operators that are left. `refused`: a word of each reason."""

    run: Callable[[ir.Model], PassFacts]
    body: str
    weights: tools.Weights
    outputs: str
    changed: int
    left: dict[str, int]
    opset: int = 20
    refused: tuple[str, ...] = field(default=())


CASES = {
    "batchnorm-with-bias": Case(
        run=fold_batchnorm,
        body=f"{CONV.format(bias=', b')} y = {FOLD}",
        weights=WEIGHT | BIAS | NORM,
        outputs=IMAGES,
        changed=1,
        left={"Conv": 1},
    ),
    "batchnorm-without-bias-inside": Case(
        run=fold_batchnorm,
        body=f"{CONV.format(bias='')} c = {FOLD} y = Relu(c)",
        weights=WEIGHT | NORM,
        outputs=IMAGES,
        changed=1,
        left={"Conv": 1, "Relu": 1},
    ),
    "batchnorm-bypassed-by-a-shortcut": Case(
        run=fold_batchnorm,
        body=f"{CONV.format(bias='')} c = {FOLD} y = Add(a, c)",
        weights=WEIGHT | NORM,
        outputs=IMAGES,
        changed=0,
        left={"Conv": 1, "BatchNormalization": 1, "Add": 1},
        refused=("elsewhere",),
    ),
    "batchnorm-of-an-output": Case(
        run=fold_batchnorm,
        body=f"{CONV.format(bias='')} y = {FOLD}",
        weights=WEIGHT | NORM,
        outputs=f"{IMAGES}, float[n,6,8,8] a",
        changed=0,
        left={"Conv": 1, "BatchNormalization": 1},
        refused=("elsewhere",),
    ),
    "batchnorm-of-computed-weights": Case(
        run=fold_batchnorm,
        body=f"w = Abs(v) {CONV.format(bias='')} y = {FOLD}",
        weights={"v": WEIGHT["w"]} | NORM,
        outputs=IMAGES,
        changed=0,
        left={"Abs": 1, "Conv": 1, "BatchNormalization": 1},
        refused=("no constants",),
    ),
    "batchnorm-behind-a-sum": Case(
        run=fold_batchnorm,
        body="a = Add(x, x) y = BatchNormalization(a, gamma, beta, mean, variance)",
        weights={name: values[:4] for name, values in NORM.items()},
        outputs="float[n,4,8,8] y",
        changed=0,
        left={"Add": 1, "BatchNormalization": 1},
    ),
    "mean-kept": Case(
        run=mean_to_pool,
        body="y = ReduceMean(x, axes)",
        weights=AXES,
        outputs="float[n,4,1,1] y",
        changed=1,
        left={"GlobalAveragePool": 1},
    ),
    "mean-dropped": Case(
        run=mean_to_pool,
        body="r = Relu(x) y = ReduceMean<keepdims=0>(r, axes)",
        weights=LAST_AXES,
        outputs="float[n,4] y",
        changed=1,
        left={"Relu": 1, "GlobalAveragePool": 1, "Flatten": 1},
    ),
    "mean-by-attribute": Case(
        run=mean_to_pool,
        body="y = ReduceMean<axes=[2,3], keepdims=0>(x)",
        weights={},
        outputs="float[n,4] y",
        changed=1,
        left={"GlobalAveragePool": 1, "Flatten": 1},
        opset=17,
    ),
    "mean-over-channels": Case(
        run=mean_to_pool,
        body="y = ReduceMean(x, axes)",
        weights={"axes": np.array([1, 2])},
        outputs="float[n,1,1,8] y",
        changed=0,
        left={"ReduceMean": 1},
        refused=("axes",),
    ),
    "mean-of-everything": Case(
        run=mean_to_pool,
        body="y = ReduceMean<keepdims=0>(x)",
        weights={},
        outputs="float y",
        changed=0,
        left={"ReduceMean": 1},
        refused=("axes",),
    ),
    "standardised-weights": Case(
        run=fold_constants,
        body="""m = ReduceMean(w, all) d = Sub(w, m) q = Mul(d, d) v = ReduceMean(q, all)
            e = Add(v, tiny) r = Sqrt(e) s = Div(d, r) y = Conv<pads=[1,1,1,1]>(x, s)""",
        weights=WEIGHT | {"all": np.array([1, 2, 3]), "tiny": np.array(1e-5, np.float32)},
        outputs=IMAGES,
        changed=7,
        left={"Conv": 1},
    ),
    "arithmetic-on-shapes": Case(
        run=fold_constants,
        body="""z = ConstantOfShape<value = int64[1] {7}>(two) f = Concat<axis=0>(z, pair)
            t = Reshape(f, square) g = Cast<to=1>(t) m = ReduceSum<keepdims=0>(g) y = Add(x, m)""",
        weights={
            "two": np.array([2]),
            "pair": np.array([3, 4]),
            "square": np.array([2, 2]),
        },
        outputs="float[n,4,8,8] y",
        changed=5,
        left={"Add": 1},
    ),
    "random-numbers": Case(
        run=fold_constants,
        body="r = RandomNormalLike<scale=1e-30>(b) a = Add(b, b) s = Add(a, r) y = Add(x, s)",
        weights={"b": np.ones(8, np.float32)},
        outputs="float[n,4,8,8] y",
        changed=1,
        left={"RandomNormalLike": 1, "Add": 2},
        refused=("random",),
    ),
    "a-large-tensor-of-a-small-rule": Case(
        run=fold_constants,
        body="t = Tile(one, many) r = ReduceSum<keepdims=0>(t) y = Add(x, r)",
        weights={"one": np.ones(1, np.float32), "many": np.array([100_000])},
        outputs="float[n,4,8,8] y",
        changed=0,
        left={"Tile": 1, "ReduceSum": 1, "Add": 1},
        refused=("large tensor",),
    ),
    "nothing-but-weights": Case(
        run=fold_constants,
        body="y = Conv(x, w)",
        weights=WEIGHT,
        outputs="float[n,6,6,6] y",
        changed=0,
        left={"Conv": 1},
    ),
    "equal-constants": Case(
        run=share_constants,
        body="a = Add(x, p) b = Mul(a, q) y = Sub(b, r)",
        weights={
            "p": np.ones((4, 1, 1), np.float32),
            "q": np.ones((4, 1, 1), np.float32),
            "r": np.ones((1, 1), np.float32),
        },
        outputs="float[n,4,8,8] y",
        changed=1,
        left={"Add": 1, "Mul": 1, "Sub": 1},
    ),
    "constants-that-are-promised": Case(
        run=share_constants,
        body="a = Add(x, p) y = Mul(a, q)",
        weights={"p": np.ones(1, np.float32), "q": np.ones(1, np.float32)},
        outputs="float[n,4,8,8] y, float[1] q",
        changed=0,
        left={"Add": 1, "Mul": 1},
    ),
    "identities-constants-and-dead-ends": Case(
        run=clean,
        body="""one = Constant<value = float {1.0}>() i = Identity(x) a = Add(i, one)
            dead = Relu(a) y = Identity(a)""",
        weights={"unused": np.zeros(3, np.float32)},
        outputs="float[n,4,8,8] y",
        changed=4,
        left={"Add": 1},
    ),
    "identity-of-the-input": Case(
        run=clean,
        body="y = Identity(x)",
        weights={},
        outputs="float[n,4,8,8] y",
        changed=0,
        left={"Identity": 1},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_pass(case: Case, tmp_path: Path) -> None:
    before = tools.proto(case.body, case.weights, outputs=case.outputs, opset=case.opset)
    model = ir.from_proto(before)
    facts = case.run(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert facts.changed == case.changed
    assert len(facts.refused) == len(case.refused)
    assert all(word in reason for word, reason in zip(case.refused, facts.refused, strict=True))
    assert Counter(node.op_type for node in after.graph.node) == case.left
    read = {name for node in after.graph.node for name in node.input}
    assert {tensor.name for tensor in after.graph.initializer} <= read
    assert after.graph.input == before.graph.input
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    for batch in (1, 3):
        images = tools.noise(batch, 4, 8, 8, seed=batch)
        expected, got = (
            tools.answer(saved(proto, tmp_path), images, exact=True) for proto in (before, after)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "graph.onnx"
    onnx.save(proto, path)
    return path


def test_all_passes_together_leave_nothing_to_do() -> None:
    body = f"""i = Identity(x) w = Identity(v) a = Conv<pads=[1,1,1,1]>(i, w) c = {FOLD}
        r = Relu(c) y = ReduceMean<keepdims=0>(r, axes)"""
    weights = {"v": WEIGHT["w"]} | NORM | AXES
    model = ir.from_proto(tools.proto(body, weights, outputs="float[n,6] y"))
    first, again = apply_passes(model), apply_passes(model)
    assert {name: facts.changed for name, facts in first.items()} == {
        "clean": 2,
        "fold-constants": 0,
        "fold-batchnorm": 1,
        "mean-to-pool": 1,
        "share-constants": 0,
    }
    assert list(first) == list(PASSES)
    assert not any(facts.changed for facts in again.values())
    assert Counter(node.op_type for node in model.graph) == {
        "Conv": 1,
        "Relu": 1,
        "GlobalAveragePool": 1,
        "Flatten": 1,
    }
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
