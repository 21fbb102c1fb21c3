"""Gains are what noise adds to the answers; what PyTorch makes of a graph is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.shapes import shapes_of
from resdeploy.runtimes.gradients import answers_of, gains_of, without_gradient
from tests.graph import tools
from tests.graph.test_blocks import KINDS
from tests.graph.test_scaling import CASES, IMAGE

# Gains are of the first order, and both sides are means over random numbers.
WITHIN = 1.5


@pytest.mark.parametrize("name", CASES)
def test_gains_are_what_noise_adds_to_the_answers(name: str, tmp_path: Path) -> None:
    """Noise is added to one tensor at a time, and the answers are watched."""
    proto = CASES[name].proto()
    onnx.save(proto, tmp_path / "plain.onnx")
    images = tools.noise(256, 4, 8, 8, seed=30)
    model = tools.model_of(proto)
    shapes = shapes_of(model, IMAGE)
    tensors = [
        value.name
        for node in model.graph
        if node.op_type in ("Conv", "Relu", "Add")
        for value in node.outputs
        if value.name in shapes and value not in model.graph.outputs
    ]
    gains = gains_of(model, [images[index : index + 1] for index in range(256)], tensors)
    answers = tools.answer(tmp_path / "plain.onnx", images)
    assert set(gains) == set(tensors)
    for tensor in tensors:
        ratio = gains[tensor].sum() / injected(proto, tensor, images, answers, tmp_path)
        assert 1 / WITHIN < ratio < WITHIN, (tensor, ratio)


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_the_family_has_gains(name: str, tmp_path: Path) -> None:
    path = tools.passed(tmp_path, name, 32)
    model = read_model(path)
    assert without_gradient(model) == ()
    image = tools.noise(1, 3, 32, 32)
    expected = tools.answer(path, image)
    np.testing.assert_allclose(answers_of(model, image), expected, rtol=1e-4, atol=1e-4)


POOLS = {
    "max": "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,0,0,1]>",
    "max, ceil": "MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",
    "max, dilated": "MaxPool<kernel_shape=[2,2], dilations=[2,3]>",
    "average": "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>",
    "average, padding counts": """AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1],
        count_include_pad=1>""",
    "average, ceil": "AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>",
    "average, same": """AveragePool<kernel_shape=[3,2], strides=[2,2], auto_pad="SAME_LOWER">""",
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
def test_pools_pad_as_the_specification_says(pool: str, tmp_path: Path) -> None:
    path = tmp_path / "pool.onnx"
    proto = tools.proto(f"y = {pool}(x)", {}, inputs="float[n,4,9,7] x", outputs="float[n,4,p,q] y")
    onnx.save(proto, path)
    image = tools.noise(1, 4, 9, 7)
    made = answers_of(read_model(path), image)
    np.testing.assert_allclose(made, tools.answer(path, image), rtol=1e-5, atol=1e-6)


def test_an_operator_without_a_gradient_is_named() -> None:
    proto = tools.proto("a = Erf(x) y = Mod<fmod=1>(a, x)", {}, outputs="float[n,4,8,8] y")
    assert without_gradient(tools.model_of(proto)) == ("Erf", "Mod")


def injected(
    proto: onnx.ModelProto,
    tensor: str,
    images: NDArray[np.float32],
    answers: NDArray[np.float32],
    folder: Path,
) -> float:
    """The variance that noise in `tensor` adds to the answers, over the noise's own."""
    model = tools.model_of(proto)
    value = next(v for node in model.graph for v in node.outputs if v.name == tensor)
    shape = shapes_of(model, IMAGE)[tensor]
    size = np.float32(1e-2)
    noise = size * tools.noise(len(images), *shape[1:], seed=31)
    term = ir.val("noise", const_value=ir.tensor(noise, name="noise"))
    model.graph.register_initializer(term)
    readers = tuple(value.uses())
    noisy = ir.val("noisy", dtype=ir.DataType.FLOAT)
    for node, index in readers:
        node.replace_input_with(index, noisy)
    added = ir.Node("", "Add", [value, term], outputs=[noisy], name="noisy")
    producer = value.producer()
    assert producer is not None
    model.graph.insert_after(producer, added)
    write_model(model, folder / "noisy.onnx")
    difference = tools.answer(folder / "noisy.onnx", images).astype(np.float64) - answers
    return float(np.square(difference).sum(axis=1).mean() / size**2)
