from __future__ import annotations

import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from resdeploy.errors import WeightsError
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.weights.checkpoint import read_checkpoint
from resdeploy.models.weights.load import load_weights
from resdeploy.models.weights.paddle import INTERNAL_NAMES, SLICED

PROTOCOLS = [2, 3, 4, 5]
WEIGHTS: dict[str, Any] = {
    "conv.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    "norm._mean": np.array([1, 2], dtype=np.float32),
    "norm._variance": np.array([3, 4], dtype=np.float32),
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.zeros(3, dtype=np.float32),
}


class PaddleTensor:
    """Pickled as Paddle 2.1 and later pickle their tensors: a call of `tuple`."""

    def __init__(self, name: str, array: Any) -> None:
        self.pair = (name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self.pair,)


class Calls:
    """Pickled as a call of a function that the reader has to judge."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def assert_weights(tensors: dict[str, Tensor]) -> None:
    assert set(tensors) == {
        "conv.weight", "norm.running_mean", "norm.running_var", "fc.weight", "fc.bias",
    }  # fmt: skip
    for theirs, ours in (
        ("conv.weight",) * 2,
        ("fc.bias",) * 2,
        ("norm._mean", "norm.running_mean"),
    ):
        assert torch.equal(tensors[ours], torch.tensor(WEIGHTS[theirs]))
    assert torch.equal(tensors["norm.running_var"], torch.tensor([3.0, 4.0]))
    assert torch.equal(tensors["fc.weight"], torch.tensor([[0.0, 3], [1, 4], [2, 5]]))
    assert all(tensor.is_contiguous() for tensor in tensors.values())


# --- what is read -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrapper", [None, "model"])
@pytest.mark.parametrize("form", ["arrays", "tensors", "tuples", "ordered", "named"])
def test_the_forms_of_paddles_files(
    tmp_path: Path, form: str, wrapper: str | None, protocol: int
) -> None:
    forms: dict[str, Callable[[], Any]] = {
        "arrays": lambda: dict(WEIGHTS),
        "tensors": lambda: {key: PaddleTensor("batch_norm_0.w_0", WEIGHTS[key]) for key in WEIGHTS},
        "tuples": lambda: {key: ("linear_0.w_0", value) for key, value in WEIGHTS.items()},
        "ordered": lambda: OrderedDict(WEIGHTS),
        "named": lambda: {**WEIGHTS, INTERNAL_NAMES: {key: "linear_0.w_0" for key in WEIGHTS}},
    }
    state = forms[form]()
    content = {wrapper: state, "epoch": 3, "acc": np.float64(0.5)} if wrapper else state
    checkpoint = read_checkpoint(write(tmp_path / "w.pdparams", content, protocol))
    assert_weights(checkpoint.tensors)
    assert checkpoint.notes == ()


def test_a_file_of_python_2(tmp_path: Path) -> None:
    # As its cPickle writes np.arange(2.0, dtype="f4"): bytes are text there.
    data = np.arange(2, dtype="<f4").tobytes()
    short = b"U" + bytes([len(data)]) + data
    (tmp_path / "w.pdparams").write_bytes(
        b"\x80\x02}U\x07fc.biascnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + short + b"tbs."
    )
    tensors = read_checkpoint(tmp_path / "w.pdparams").tensors
    assert torch.equal(tensors["fc.bias"], torch.tensor([0.0, 1.0]))


def test_a_weight_that_was_cut_in_slices(tmp_path: Path) -> None:
    flat = WEIGHTS["conv.weight"].flatten()
    state = {key: value for key, value in WEIGHTS.items() if key != "conv.weight"}
    state |= {"conv.weight@@.0": flat[:50], "conv.weight@@.1": flat[50:]}
    facts = {"OriginShape": (2, 3, 3, 3), "slices": ["conv.weight@@.0", "conv.weight@@.1"]}
    state[SLICED] = {"conv.weight": facts}
    assert_weights(read_checkpoint(write(tmp_path / "w.pdparams", state, 2)).tensors)


def test_bfloat16_is_kept_as_uint16(tmp_path: Path) -> None:
    wanted = torch.tensor([1.5, -2.0, 3e38], dtype=torch.bfloat16)
    path = write(tmp_path / "w.pdparams", {"fc.bias": wanted.view(torch.int16).numpy().view("u2")})
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.tensors["fc.bias"], wanted.float())
    assert "1 bfloat16 tensors" in checkpoint.notes[0]


@settings(max_examples=60, deadline=None)
@given(
    whole=arrays.arrays(
        dtype=np.int8, shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    ),
    dtype=st.sampled_from(["<f4", ">f4", "<f2", ">f8", "<i4", ">i8", "|b1"]),
    fortran=st.booleans(),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_array_comes_out_as_it_went_in(
    whole: Any, dtype: str, fortran: bool, protocol: int
) -> None:
    wanted = whole.astype(dtype)
    content = {"x": np.array(wanted, order="F" if fortran else "C")}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "w.pdparams", content, protocol)
        found = read_checkpoint(path).tensors["x"]
    assert tuple(found.shape) == wanted.shape
    assert np.array_equal(found.numpy(), wanted)


def test_the_paddle_variant_loads_its_own_checkpoint(tmp_path: Path) -> None:
    config = VARIANTS["resnet18_paddle"].config
    source = build(config, seed=1)
    names = {"running_mean": "_mean", "running_var": "_variance"}
    content = {}
    for key, tensor in source.state_dict().items():
        layer, _, kind = key.rpartition(".")
        if kind != "num_batches_tracked":
            array = (tensor.T if tensor.ndim == 2 else tensor).numpy()
            content[f"{layer}.{names.get(kind, kind)}"] = PaddleTensor("x", array)
    assert content["fc.weight"].pair[1].shape == (512, 1000)
    checkpoint = read_checkpoint(write(tmp_path / "resnet18.pdparams", content))
    model = skeleton(config)
    load_weights(model, checkpoint, model="resnet18_paddle")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(images), source(images))


# --- what is refused --------------------------------------------------------------------


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, "touch trap"),
        (eval, "open('trap', 'w')"),
        (exec, "open('trap', 'w')"),
        (getattr, "trap"),
        (open, "trap"),
        (Path.touch, Path("trap")),
        (np.load, "trap"),
        (np.fromfile, "trap"),
        (pickle.loads, pickle.dumps(Calls(os.system, "touch trap"))),
        (torch.load, "trap"),
    ],
)
def test_code_is_refused_by_name_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., Any],
    argument: Any,
    protocol: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Calls(function, argument), {"fc.bias": Calls(function, argument)}):
        error = refusal(write(tmp_path / "w.pdparams", content, protocol))
        assert "needs code to be read (" in error.message
        assert "never run" in error.message
        assert error.__cause__ is not None
    assert not (tmp_path / "trap").exists()


RECONSTRUCT = np.zeros(1).__reduce__()[0]
STATE = (1, (2,), np.dtype("f4"), False, b"\0" * 8)


BYTES = "an array with too few or too many bytes"


def array(*state: Any) -> Calls:
    """An array of this state."""
    return Calls(RECONSTRUCT, np.ndarray, (0,), b"b", state=state)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Calls(RECONSTRUCT, np.matrix, (0,), b"b", state=STATE), "code to be read (numpy.matrix)"),
        (Calls(RECONSTRUCT, np.dtype, (0,), b"b", state=STATE), "else than a plain array"),
        (array(1, (3,), *STATE[2:]), BYTES),
        (array(1, (-2,), *STATE[2:]), "an array that numpy would not write"),
        (array(1, (2**62, 2**62), *STATE[2:]), BYTES),
        (array(1, (2,), "f4", False, b"\0" * 8), "an array that numpy would not write"),
        (array(*STATE[:4], [1.0, 2.0]), BYTES),
        (Calls(RECONSTRUCT, np.ndarray, (0,), b"b", state={"shape": (2,)}), "form that is not"),
        (Calls(RECONSTRUCT, np.ndarray, (0,), b"b"), "an array without its numbers"),
        (Calls(np.ndarray, (2,), np.dtype("f4")), "it calls what is not called"),
        (Calls(np.dtype, "O"), "an array of 'O', not of numbers"),
        (Calls(np.dtype, [("a", "f4"), ("b", "O")]), "an array of [('a', 'f4'), ('b', 'O')], not"),
        (
            Calls(np.dtype, "f4", False, True, state=(3, "<", ("f4", (2,)), None, None, -1, -1, 0)),
            "an array of records",
        ),
        (Calls(tuple, "ab"), "a tuple that is no named array"),
        (Calls(tuple, ("name", 3)), "a tuple that is no named array"),
        (np.array([{"a": 1}, None], dtype=object), "an array of 'O8', not of numbers"),
        (np.array(["text"]), "an array of 'U4', not of numbers"),
        (np.array([b"bytes"]), "an array of 'S5', not of numbers"),
        (np.zeros(2, dtype=[("a", "f4")]), "an array of 'V4', not of numbers"),
        (np.zeros(2, dtype="M8[s]"), "an array of 'M8', not of numbers"),
        (np.zeros(2, dtype="c8"), "an array of 'c8', not of numbers"),
        (np.ma.masked_array([1.0], [True]), "code to be read (numpy.ma"),
        ({1, 2}, "1 entries that are no tensors: x (set)"),
        (torch.zeros(2), "code to be read (torch._utils."),
    ],
)
def test_anything_but_plain_numbers_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        path = write(tmp_path / "w.pdparams", {"fc.bias": np.zeros(2), "x": content})
        assert said in refusal(path).message


# A place in the memo, and an announced length: Python's own readers make room for either.
GREEDY = [
    b"\x80\x02}r" + struct.pack("<I", 100_000_000) + b".",
    b"\x80\x05\x96" + struct.pack("<Q", 10**9),
]
CHILD = """
import resource, sys
from pathlib import Path
from resdeploy.errors import WeightsError
from resdeploy.models.weights.checkpoint import read_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_checkpoint(Path(sys.argv[1]))
except WeightsError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error.message)
"""


@pytest.mark.parametrize("program", GREEDY)
def test_a_few_bytes_do_not_take_all_memory(tmp_path: Path, program: bytes) -> None:
    (tmp_path / "w.pdparams").write_bytes(program)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "w.pdparams")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown_kib, _, _ = child.stdout.partition(" ")
    assert int(grown_kib) < 200_000


@pytest.mark.parametrize(
    "altered",
    [
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"ccollections\nOrderedDict\n",
        b"cbuiltins\ntuple\n",
    ],
)
@pytest.mark.parametrize(
    "state", [b"}X\x06\x00\x00\x00_buildNs", b"N}X\x06\x00\x00\x00_buildNs\x86"]
)
def test_a_pickle_cannot_alter_the_reader(tmp_path: Path, altered: bytes, state: bytes) -> None:
    program = b"\x80\x02" + altered + state + b"b."  # BUILD: set the state of the function
    assert any(op.name == "BUILD" for op, _, _ in pickletools.genops(program))
    (tmp_path / "evil.pdparams").write_bytes(program)
    refusal(tmp_path / "evil.pdparams")
    assert_weights(read_checkpoint(write(tmp_path / "w.pdparams", WEIGHTS, 2)).tensors)


def test_a_state_dict_inside_itself_ends(tmp_path: Path) -> None:
    state: dict[str, Any] = dict(WEIGHTS)
    state["model"] = state
    assert (
        "weights under model, and more beside"
        in refusal(write(tmp_path / "w.pdparams", state)).message
    )
    program = b"\x80\x02" + b"}X\x01\x00\x00\x00x" * 100_000 + b"}" + b"s" * 100_000 + b"."
    (tmp_path / "deep.pdparams").write_bytes(program)
    assert "recursion" in refusal(tmp_path / "deep.pdparams").message


@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_cut_short(tmp_path: Path, protocol: int, part: float) -> None:
    whole = pickle.dumps(WEIGHTS, protocol)
    path = tmp_path / "w.pdparams"
    path.write_bytes(whole[: int(len(whole) * part)])
    error = refusal(path)
    assert "cannot read" in error.message
    assert "cut short" in error.hint


def test_slices_that_are_missing(tmp_path: Path) -> None:
    state = {"a@@.0": np.zeros(2), SLICED: {"a": {"OriginShape": (3,), "slices": ["a@@.0"]}}}
    assert "cannot read" in refusal(write(tmp_path / "w.pdparams", state)).message
    state[SLICED] = {"a": {"OriginShape": (4,), "slices": ["a@@.0", "a@@.0"]}}
    assert "cannot read" in refusal(write(tmp_path / "w.pdparams", state)).message
