"""A model is written in pieces, byte for byte as protobuf writes it."""

from __future__ import annotations

import io
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.graph.files import read_model
from resdeploy.graph.wire import write_pieces
from tests.graph import tools

DTYPES = (
    *(np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    *(np.int8, np.uint8, np.int32, np.int64, np.bool_, ml_dtypes.int4),
)


def written(model: ir.Model) -> bytes:
    file = io.BytesIO()
    write_pieces(model, file)
    return file.getvalue()


def by_protobuf(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def with_weights(*arrays: np.ndarray) -> ir.Model:
    """A model that reads nothing of them; to write it, nobody asks."""
    model = ir.from_proto(tools.proto("y = Relu(x)", {}, outputs="float[n,4,8,8] y"))
    for place, array in enumerate(arrays):
        name = f"wéight {place}"
        tensor = ir.tensor(array, name=name, doc_string="of a layer")
        tensor.metadata_props["from"] = "here"
        model.graph.register_initializer(ir.val(name, const_value=tensor))
    model.doc_string, model.metadata_props["a"] = "what it is", "b"
    model.graph.metadata_props["c"] = "d"
    return model


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.integers(0, 40_000)), max_size=4))
def test_the_bytes_are_those_of_protobuf(weights: list[tuple[type, int]]) -> None:
    arrays = [np.arange(size).astype(np.int8).astype(dtype) for dtype, size in weights]
    model = with_weights(*arrays)
    assert written(model) == by_protobuf(model)


def test_the_model_is_as_it_was_and_weights_may_lie_in_any_order() -> None:
    turned = tools.noise(64, 64).T
    assert not turned.flags.c_contiguous
    model = with_weights(turned)
    assert written(model) == by_protobuf(model) == written(model)
    (value,) = model.graph.initializers.values()
    assert value.const_value is not None
    np.testing.assert_array_equal(value.const_value.numpy(), turned)


@pytest.mark.parametrize("name", ["resnet18", "seresnet50"])
def test_a_network_is_written_as_protobuf_writes_it(tmp_path: Path, name: str) -> None:
    model = read_model(tools.exported(tmp_path, name, 32))
    assert written(model) == by_protobuf(model)
