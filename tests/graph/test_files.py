"""Files in, models out: every way a file can be broken is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.artifact import is_published, open_artifact, publish
from resdeploy.errors import ArtifactError, GraphError
from resdeploy.graph.files import (
    copy_model,
    data_files,
    is_scattered,
    read_model,
    write_model,
)
from resdeploy.graph.reduce import with_reductions
from resdeploy.graph.summary import summary_of
from resdeploy.pipeline.make import file_facts
from resdeploy.records import Manifest
from tests.graph import tools

BODY = "a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) y = GlobalAveragePool(r)"
WEIGHTS = {"w": tools.noise(6, 4, 3, 3), "b": tools.noise(6)}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.onnx"
    onnx.save(tools.proto(BODY, WEIGHTS, outputs="float[n,6,1,1] y"), path)
    return path


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(sound: Path, kept: float) -> None:
    content = sound.read_bytes()
    sound.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(GraphError, match=r"sound\.onnx is not a valid ONNX model") as raised:
        read_model(sound)
    assert raised.value.hint


@pytest.mark.parametrize("name", ["a.onnx", "a.json", "a.onnxtxt", "a.textproto"])
@pytest.mark.parametrize("content", ["", "not a graph", '{"kind": "artifact"}'])
def test_what_is_no_onnx_whatever_it_is_called(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(GraphError, match="is not a valid ONNX model"):
        read_model(path)


def test_a_missing_file_a_folder_and_an_invalid_graph(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no\.onnx is not a file"):
        read_model(tmp_path / "no.onnx")
    with pytest.raises(GraphError, match="is not a file"):
        read_model(tmp_path)
    proto = onnx.load(sound)
    proto.graph.node[1].input[0] = "nobody"
    sound.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphError, match="nobody"):
        read_model(sound)


def shortened(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]


def given_twice(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def of_no_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = onnx.TensorProto.UNDEFINED


def of_text(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = onnx.TensorProto.STRING


def with_numbers_twice(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].float_data.append(1.0)


def of_negative_size(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:2] = [-8, -4]


def of_no_input_in_old_onnx(proto: onnx.ModelProto) -> None:
    proto.ir_version = 3
    made_an_input(proto, proto.graph.initializer[1])  # the small one, so that "w" alone is none


def made_an_input(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    shape = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    proto.graph.input.add(name=tensor.name, type=shape)


def made_by_a_node_too(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "w"
    proto.graph.node[2].input[0] = "w"


def read_before_it_is_made(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(proto.graph.node.pop(0))


def without_a_name(proto: onnx.ModelProto) -> None:
    proto.graph.name = ""


def of_unknown_operators(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Rely"


def in_unknown_words(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].name = "pad"


@pytest.fixture(scope="module")
def weighty() -> bytes:
    weights = {"w": tools.noise(8, 4, 3, 3), "b": tools.noise(8)}
    return tools.proto(BODY, weights, outputs="float[n,8,1,1] y").SerializeToString()


@pytest.mark.parametrize(
    "breaks",
    [
        *(shortened, given_twice, of_no_type, of_text, with_numbers_twice, of_negative_size),
        *(of_no_input_in_old_onnx, made_by_a_node_too, read_before_it_is_made, without_a_name),
        *(of_unknown_operators, in_unknown_words),
    ],
    ids=lambda breaks: breaks.__name__,
)
def test_what_the_checker_refuses_is_refused_in_its_words(
    breaks: Callable[[onnx.ModelProto], None], weighty: bytes, tmp_path: Path
) -> None:
    proto = onnx.load_from_string(weighty)
    breaks(proto)
    path = tmp_path / "broken.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(onnx.checker.ValidationError) as theirs:
        onnx.checker.check_model(path)
    with pytest.raises(GraphError, match="is not a valid ONNX model") as ours:
        read_model(path)
    assert str(theirs.value).strip().splitlines()[0] in str(ours.value)


@pytest.mark.parametrize("ir_version", [3, 9])
def test_a_weight_may_be_an_input_too(ir_version: int, weighty: bytes, tmp_path: Path) -> None:
    proto = onnx.load_from_string(weighty)
    proto.ir_version = ir_version
    for tensor in proto.graph.initializer:
        made_an_input(proto, tensor)
    path = tmp_path / "old.onnx"
    path.write_bytes(proto.SerializeToString())
    read = read_model(path).graph.initializers["w"].const_value
    assert read is not None
    np.testing.assert_array_equal(
        read.numpy(), onnx.numpy_helper.to_array(proto.graph.initializer[0])
    )


def test_a_model_is_written_the_same_every_time_and_read_back(sound: Path, tmp_path: Path) -> None:
    for name in ("1.onnx", "2.onnx"):
        write_model(read_model(sound), tmp_path / name)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
    write_model(read_model(tmp_path / "1.onnx"), tmp_path / "3.onnx")
    assert (tmp_path / "3.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
    images = tools.noise(2, 4, 8, 8)
    np.testing.assert_array_equal(
        tools.answer(sound, images), tools.answer(tmp_path / "3.onnx", images)
    )


def test_what_a_summary_says(sound: Path) -> None:
    summary = summary_of(read_model(sound))
    assert summary.opset == 20
    assert summary.inputs[0].model_dump() == {
        "name": "x",
        "dtype": "float",
        "shape": ("n", 4, 8, 8),
    }
    assert summary.outputs[0].shape == ("n", 6, 1, 1)
    assert (summary.nodes, summary.params) == (3, 6 * 4 * 9 + 6)
    assert summary.operators == {"Conv": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert summary.bytes_by_dtype == {"float": 4 * summary.params}
    assert summary.precision == "fp32"
    quantized = summary_of(read_model(tools.quantized(sound, tools.noise(1, 4, 8, 8))))
    assert quantized.precision == "int8"
    assert quantized.bytes_by_dtype["int8"] >= 6 * 4 * 9
    assert list(quantized.operators.values()) == sorted(quantized.operators.values(), reverse=True)


def test_a_summary_of_graphs_that_leave_things_out() -> None:
    proto = tools.proto("y = Relu(x)", {}, inputs="float[n,?,4] x", outputs="float[n,?,4] y")
    facts = summary_of(tools.model_of(proto))
    assert facts.inputs[0].shape == facts.outputs[0].shape == ("n", "?", 4)
    proto.opset_import[0].domain = "com.microsoft"
    assert summary_of(tools.model_of(proto)).opset == 0
    half = tools.proto(
        "y = Mul(x, h)",
        {"h": np.ones(8, np.float16)},
        inputs="float16[n,8] x",
        outputs="float16[n,8] y",
    )
    assert summary_of(tools.model_of(half)).precision == "fp16"


def test_reductions_are_those_of_numpy_and_need_a_tensor(sound: Path, tmp_path: Path) -> None:
    from resdeploy.runtimes import OrtRunner

    model = read_model(sound)
    added = with_reductions(model, ["x", "r"], ["ReduceMin", "ReduceMax"])
    assert added == ("x.ReduceMin", "x.ReduceMax", "r.ReduceMin", "r.ReduceMax")
    with pytest.raises(GraphError, match="no tensor named 'rr'"):
        with_reductions(model, ["rr"], ["ReduceMin"])
    observed = tmp_path / "observed.onnx"
    write_model(model, observed)
    images = tools.noise(3, 4, 8, 8)
    with OrtRunner(observed, threads=1) as runner:
        seen = runner.run_all(images)
    assert (seen["x.ReduceMin"], seen["x.ReduceMax"]) == (images.min(), images.max())
    assert seen["r.ReduceMin"] >= 0
    np.testing.assert_array_equal(seen["y"], tools.answer(sound, images))


def with_weights(folder: Path, location: str) -> Path:
    """A graph whose weights are in another file."""
    model = tools.proto("y = Add(x, w)", {"w": tools.noise(2, 3)}, inputs="float[2,3] x",
                        outputs="float[2,3] y")  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_beside_a_file_are_read(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "here", "w.data")
    assert [file.name for file in data_files(path)] == ["w.data"]
    model = read_model(path)
    assert is_scattered(model)
    np.testing.assert_array_equal(weight_of(model), tools.noise(2, 3))
    # And they come into one file where they are not too many.
    write_model(model, tmp_path / "one.onnx")
    assert data_files(tmp_path / "one.onnx") == ()
    np.testing.assert_array_equal(weight_of(read_model(tmp_path / "one.onnx")), tools.noise(2, 3))


def weight_of(model: ir.Model) -> np.ndarray:
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../here/w.data", "not a file beside it"),
        ("/etc/passwd", "not a file beside it"),
        ("sub/w.data", "not a file beside it"),
        ("..", "not a file beside it"),
        ("", "not a file beside it"),
        ("link.data", "no such file beside it"),
        ("gone.data", "no such file beside it"),
    ],
)
def test_weights_elsewhere_are_refused(location: str, said: str, tmp_path: Path) -> None:
    path = with_weights(tmp_path / "here", location)
    (tmp_path / "here" / "link.data").symlink_to(tmp_path / "here" / "w.data")
    for read in (read_model, data_files):
        with pytest.raises(GraphError, match=said):
            read(path)


def test_large_weights_go_beside_the_file(tmp_path: Path) -> None:
    """Large is what the limit says; two models in one folder do not share a file."""
    model = ir.from_proto(
        tools.proto(
            "c = Conv(x, w) y = Add(c, b)",
            {"w": tools.noise(64, 4, 3, 3), "b": np.ones(1, np.float32)},
            outputs="float[n,64,6,6] y",
        )
    )
    paths = [tmp_path / name for name in ("one.onnx", "two.onnx")]
    write_model(model, paths[0], largest_bytes=1000)
    (data,) = data_files(paths[0])
    assert data.stat().st_size == 64 * 4 * 9 * 4
    assert paths[0].stat().st_size < 1000
    weight = model.graph.initializers["w"]
    assert weight.const_value is not None
    changed = weight.const_value.numpy() + 1
    before = tools.answer(paths[0], tools.noise(1, 4, 8, 8))
    weight.const_value = ir.tensor(changed, name="w")
    write_model(model, paths[1], largest_bytes=1000)
    assert data_files(paths[1]) != (data,)
    np.testing.assert_array_equal(tools.answer(paths[0], tools.noise(1, 4, 8, 8)), before)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy_model(paths[0], elsewhere / "renamed.onnx")
    got = tools.answer(elsewhere / "renamed.onnx", tools.noise(1, 4, 8, 8))
    np.testing.assert_array_equal(got, before)
    again = tmp_path / "again"
    again.mkdir()
    write_model(read_model(paths[1]), again / "two.onnx", largest_bytes=1000)
    assert (again / "two.onnx").read_bytes() == paths[1].read_bytes()


def test_an_artifact_takes_its_weights_along(tmp_path: Path) -> None:
    model = ir.from_proto(tools.proto("y = Conv(x, w)", {"w": tools.noise(64, 4, 3, 3)},
                                      outputs="float[n,64,6,6] y"))  # fmt: skip
    made, path = tmp_path / "made.onnx", tmp_path / "out" / "final.onnx"
    write_model(model, made, largest_bytes=1000)
    facts = file_facts(made)
    assert facts["size_bytes"] > 64 * 4 * 9 * 4
    manifest = Manifest(
        name="x", format="onnx", precision="fp32", opset=20, inputs=(), outputs=(), model=None,
        preprocess=None, verification=(), history=(), **facts,
    )  # fmt: skip
    publish(made, path, manifest)
    assert open_artifact(path).manifest == manifest
    assert is_published(path, manifest)
    assert tools.answer(path, tools.noise(1, 4, 8, 8)).shape == (1, 64, 6, 6)
    (data,) = data_files(path)
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert not is_published(path, manifest)
    with pytest.raises(ArtifactError, match="missing or not those it was written with"):
        open_artifact(path)
    publish(made, path, manifest)
    assert is_published(path, manifest)
