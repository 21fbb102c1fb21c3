"""Every kind of block in every precision, compiled by TensorRT-RTX; and what cannot be compiled.

No GPU is needed. What is proved is that the compiler takes the files, strongly typed, and that
engines hold weights of the precision that was asked for; not that they run, nor how fast.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from resdeploy.artifact import open_artifact
from resdeploy.contracts import silent, unheard
from resdeploy.engines import BACKENDS
from resdeploy.engines.compiler import CompilerChild
from resdeploy.engines.header import plan_version
from resdeploy.errors import ChildFailedError, EngineError, GraphError, ResdeployError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.fp16 import cast_to_fp16
from resdeploy.pipeline.make_engine import Compile, engine_file
from resdeploy.pipeline.opened import opened_onnx
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.records import BatchProfile, Compiled, EngineJob, EngineOptions, Manifest
from tests.conftest import Cli
from tests.graph import tools
from tests.graph.test_blocks import KINDS, kept

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError)

RTX = BACKENDS["rtx"]
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
STATIC = (BatchProfile(min=1, opt=1, max=1),)
DYNAMIC = (BatchProfile(min=1, opt=8, max=32),)
TWO = (BatchProfile(min=1, opt=1, max=4), BatchProfile(min=8, opt=16, max=32))
PROFILES = {"static": STATIC, "dynamic": DYNAMIC, "two profiles": TWO}

BODY = "r = Conv<pads=[1,1,1,1]>(x, w) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v)"
WEIGHTS = {"w": tools.noise(6, 4, 3, 3), "v": tools.noise(6, 5)}


def compiled(source: Path, plan: Path, *, timeout_s: float = 300, **options: Any) -> Manifest:
    """The engine of an ONNX file, in `plan`, and what its sidecar would say."""
    artifact, manifest = opened_onnx(source, InputChoice(), PRECISIONS)
    work = Compile(
        source=artifact,
        manifest=manifest,
        backend=RTX,
        options=EngineOptions(**options),
        timeout_s=timeout_s,
    )
    return engine_file(work, plan, notify=unheard, progress=silent)


def sources(folder: Path, name: str) -> dict[str, Path]:
    """An ONNX file of a model in each precision."""
    floats = tools.simplified(folder, name, 64)
    images = tools.noise(1, 3, 64, 64)
    keep = kept(floats, name)
    int8 = tools.quantized(floats, images, target="tensorrt", bits=8, keep=keep)
    return {
        "fp32": floats,
        "fp16": halved(floats),
        "int8": int8,
        "int8-fp16": halved(int8),
    }


def halved(source: Path) -> Path:
    """The float16 form of a file."""
    model = read_model(source)
    cast_to_fp16(model, io="fp32", keep=())
    path = source.with_suffix(".fp16.onnx")
    write_model(model, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_every_kind_compiles_in_every_precision(name: str, tmp_path: Path) -> None:
    """All checks of the precision obtained hold, and an engine has the size of its weights."""
    for precision, source in sources(tmp_path, name).items():
        for profiles in PROFILES.values():
            plan = tmp_path / "x.engine"
            made = compiled(source, plan, profiles=profiles)
            assert made.precision == precision
            assert made.engine is not None
            assert not [line for line in made.engine.warnings if "scales to fp32" not in line]
            assert all(check.passed for check in made.verification)
            assert {"compile.inputs-outputs", "compile.network-types"} <= {
                check.name for check in made.verification
            }
            assert plan_version(plan) == tuple(map(int, made.engine.version.split(".")))


def test_a_small_graph_compiles_with_every_option(tmp_path: Path) -> None:
    path = saved(tmp_path, BODY)
    for options in (
        {},
        {"level": 0, "workspace_mib": 64, "compute_capabilities": ("8.6", "12.0")},
        {"compute_capabilities": RTX.capabilities[1:]},
    ):
        made = compiled(path, tmp_path / "x.engine", **options)
        assert made.engine is not None
        assert made.engine.options == EngineOptions(**options)
        assert made.engine.source_sha256 == open_artifact(path).sha256
    assert plan_version(tmp_path / "x.engine") is not None


def test_turing_is_compiled_for_in_float16_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, BODY)
    options = {"compute_capabilities": ("7.5",)}
    with pytest.raises(EngineError, match="Turing") as raised:
        compiled(path, tmp_path / "x.engine", **options)
    assert "float16" in raised.value.hint
    made = compiled(halved(path), tmp_path / "x.engine", **options)
    assert made.precision == "fp16"


def saved(folder: Path, body: str, **more: Any) -> Path:
    path = folder / "x.onnx"
    onnx.save(tools.proto(body, WEIGHTS, **more), path)
    return path


def test_uint8_zero_points_are_refused_before_the_compiler_reads_them_as_int8(
    tmp_path: Path,
) -> None:
    """Which is a warning to TensorRT, and silently saturates what is above 127."""
    source = tools.passed(tmp_path, "resnet20", 32)
    path = tools.quantized(source, tools.noise(1, 3, 32, 32), target="ort-cpu", bits=8)
    with pytest.raises(GraphError, match=r"would misread.*UINT8|would misread.*uint8") as raised:
        compiled(path, tmp_path / "x.engine")
    assert "--target tensorrt" in raised.value.hint
    found = compiler_says(path, tmp_path)
    assert any("Defaulting to INT8" in line for line in found.warnings)
    assert any("Non-zero zero point" in line for line in found.problems)


def test_an_operator_that_is_not_supported_is_named_with_its_node(tmp_path: Path) -> None:
    body = BODY.replace("y = Gemm(f, v)", "g = Gemm(f, v) y = Bernoulli(g)")
    path = saved(tmp_path, body)
    model = onnx.load(path)
    model.graph.node[-1].name = "the_node"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"the_node.*Bernoulli"):
        compiled(path, tmp_path / "x.engine")


def test_a_sum_of_half_and_float_is_refused_with_its_node(tmp_path: Path) -> None:
    """Strongly typed networks convert nothing by themselves."""
    body = BODY.replace("r = Conv", "h = Identity(x) s = Add(h, x) r = Conv").replace(
        "(x, w)", "(s, w)"
    )
    model = tools.proto(body, WEIGHTS)
    cast = onnx.helper.make_node("Cast", ["x"], ["h"], name="to_half", to=onnx.TensorProto.FLOAT16)
    model.graph.node[0].CopyFrom(cast)
    model.graph.node[1].name = "the_sum"
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    found = compiler_says(path, tmp_path)
    assert any("the_sum" in problem and "Add" in problem for problem in found.problems), found
    assert not (tmp_path / "x.engine").exists()


def test_an_int32_bias_between_dequantize_linear_is_refused(tmp_path: Path) -> None:
    """As ONNX Runtime's quantizer writes it by default."""
    source = tools.passed(tmp_path, "resnet20", 32)
    model = onnx.load(tools.quantized(source, tools.noise(1, 3, 32, 32), target="tensorrt", bits=8))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    with_int32_bias(model, conv)
    path = tmp_path / "biased.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"would misread.*(INT32|int32)"):
        compiled(path, tmp_path / "x.engine")
    found = compiler_says(path, tmp_path)
    assert any("DequantizeLinear" in problem for problem in found.problems), found.problems


def with_int32_bias(model: onnx.ModelProto, conv: onnx.NodeProto) -> None:
    """Put the bias of a convolution, zeros, through a DequantizeLinear of INT32."""
    channels = next(
        value.dims[0] for value in model.graph.initializer if value.name == conv.input[2]
    )
    rows = {
        "b.q": np.zeros(channels, np.int32),
        "b.scale": np.ones(channels, np.float32),
        "b.zero": np.zeros(channels, np.int32),
    }
    for name, values in rows.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    node = onnx.helper.make_node("DequantizeLinear", list(rows), ["b.dq"], axis=0)
    conv.input[2] = "b.dq"
    model.graph.node.insert(0, node)


def compiler_says(graph: Path, folder: Path, *, timeout_s: float = 300) -> Compiled:
    """What the compiler itself says of a file, whoever looked at it before."""
    *_, last = child_of(graph, folder, timeout_s)
    return last


def job(graph: Path, folder: Path) -> EngineJob:
    plan = str(folder / "x.engine")
    options = EngineOptions()
    return EngineJob(backend="rtx", graph=str(graph), plan=plan, options=options, tf32=False)


def child_of(graph: Path, folder: Path, timeout_s: float) -> list[Any]:
    with CompilerChild(job(graph, folder), timeout_s=timeout_s) as child:
        return list(child.answers())


def test_a_build_that_is_cancelled_ends_and_leaves_no_engine(tmp_path: Path) -> None:
    source = tools.passed(tmp_path, "resnet50", 64)
    with CompilerChild(job(source, tmp_path), timeout_s=300) as child:
        next(child.answers())  # it is at work
        pid = child._process.pid
        start = time.monotonic()
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "x.engine").exists()


def test_a_build_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(ChildFailedError, match=r"longer than 0\.1 s") as raised:
        compiled(saved(tmp_path, BODY), tmp_path / "x.engine", timeout_s=0.1)
    assert "--timeout" in raised.value.hint


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").write_text("")
    path = saved(tmp_path, BODY)
    said = cli("trt", path, "--backend", "rtx", "-o", tmp_path / "file" / "x.engine")
    assert said.code == 2
    assert "cannot write" in said.err


def test_the_command_writes_an_engine_and_its_sidecar(tmp_path: Path, cli: Cli) -> None:
    """And what is left in the folder is these two alone."""
    path = tmp_path / "out" / "x.engine"
    source = ("resnet20", "--weights", "embedded:digits", "--fp16")
    made = cli("trt", *source, "--backend", "rtx", "--batch", "1:2:4", "-o", path)
    assert made.code == 0, made.err
    assert made.out.strip() == str(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.engine", "x.engine.json"]
    found = json.loads(cli("inspect", path, "--json").out)
    assert found["graph"]["precision"] == "fp16"
    assert found["manifest"]["engine"]["options"]["profiles"] == [{"min": 1, "opt": 2, "max": 4}]
    assert "compiled for" in cli("inspect", path).out
    said = cli("bench", path)
    assert said.code == 2
    assert "needs an NVIDIA GPU" in said.err


def test_without_tensorrt_it_says_what_can_be_done_instead(tmp_path: Path, cli: Cli) -> None:
    if BACKENDS["tensorrt"].is_installed():
        pytest.skip("tensorrt is installed")
    said = cli("trt", "resnet20", "-o", tmp_path / "x.engine")
    assert said.code == 2
    assert "resdeploy[gpu]" in said.err
    assert "--backend rtx" in said.err
    assert "quantize --target tensorrt" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--int8",), "INT8 needs images"),
        (("--fp16", "--data", "synthetic:8"), "are for --int8"),
        (("--fp16", "--int8"), "exclude each other"),
    ],
)
def test_options_that_contradict_each_other(
    words: tuple[str, ...], said: str, tmp_path: Path, cli: Cli
) -> None:
    found = cli("trt", "resnet20", "--backend", "rtx", *words, "-o", tmp_path / "x.engine")
    assert found.code == 2
    assert said in found.err


@pytest.mark.parametrize("version", ["8.6.1.post1", "10.0.1", "10.11.0.33"])
def test_a_version_that_is_too_old_is_refused_with_the_reason(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """A package of that version, which the compiler's process imports."""
    package = tmp_path / "site" / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    monkeypatch.syspath_prepend(package.parent)
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    said = cli("trt", saved(tmp_path, BODY), "-o", tmp_path / "x.engine")
    assert said.code == 2
    assert f"tensorrt is {version}, and 10.12 is the oldest" in said.err
    assert "strongly typed" in said.err
    assert "--upgrade" in said.err


@pytest.mark.parametrize("words", [("--embed-preprocess",), ("--head", "probabilities")])
def test_files_that_take_pixels_or_give_probabilities_compile(
    words: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    path, engine = tmp_path / "x.onnx", tmp_path / "x.engine"
    source = ("resnet20", "--weights", "embedded:digits", "--quiet")
    assert cli("export", *source, *words, "-o", path).code == 0
    made = cli("trt", path, "--fp16", "--backend", "rtx", "-o", engine, "--json")
    assert made.code == 0, made.err
    found = json.loads(made.out)
    assert found["interface"]["pixels"] is (words == ("--embed-preprocess",))
    assert found["precision"] == "fp16"


def test_an_engine_without_a_sidecar_is_shown_by_its_header(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "x.engine"
    compiled(saved(tmp_path, BODY), path)
    said = cli("inspect", path)
    assert said.code == 0
    assert "No sidecar" in said.out
    path.write_bytes(b"no engine")
    assert "does not begin like an engine" in cli("inspect", path).err


def test_ctrl_c_ends_the_compiler_and_leaves_nothing(tmp_path: Path) -> None:
    path = tools.passed(tmp_path, "resnet50", 64)
    out = tmp_path / "out"
    words = ("-m", "resdeploy", "trt", str(path), "--backend", "rtx", "-o", str(out / "x.engine"))
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as process:
        compiler = waited_for(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not psutil.pid_exists(compiler) or psutil.Process(compiler).status() == "zombie"
    assert not out.exists() or list(out.iterdir()) == []


def waited_for(pid: int) -> int:
    """The compiler's process, once it is at work."""
    for _ in range(600):
        for child in psutil.Process(pid).children(recursive=True):
            if "resdeploy.engines.child" in child.cmdline():
                return child.pid
        time.sleep(0.1)
    raise AssertionError("no compiler was started")


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    path = saved(tmp_path, BODY)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResdeployError):
        compiled(path, tmp_path / "x.engine")
    found = compiler_says(path, tmp_path)
    assert found.problems


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compute_capabilities": ("9.0",)}, "does not compile for compute capability 9.0"),
        ({"version_compatible": True}, "no version compatibility"),
        ({"hardware": "ampere-plus"}, "no hardware compatibility"),
        ({"refit": True}, "cannot compile engines for --refit"),
        ({"strip_plan": True}, "cannot compile engines for --refit or --strip-plan"),
    ],
)
def test_what_the_backend_does_not_have_is_refused(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(EngineError, match=said) as raised:
        compiled(saved(tmp_path, BODY), tmp_path / "x.engine", **options)
    assert raised.value.hint


def test_an_int8_engine_is_not_compiled_to_take_other_weights(tmp_path: Path) -> None:
    """Its scales are those of the first ones."""
    graph = saved(tmp_path, BODY)
    artifact = open_artifact(graph)
    manifest = opened_onnx(graph, InputChoice(), PRECISIONS)[1]
    work = Compile(
        source=artifact,
        manifest=manifest.model_copy(update={"precision": "int8-fp16"}),
        backend=BACKENDS["tensorrt"],
        options=EngineOptions(refit=True),
    )
    with pytest.raises(EngineError, match="is INT8, and --refit would leave it the scales"):
        engine_file(work, tmp_path / "x.engine", notify=unheard, progress=silent)
    assert not (tmp_path / "x.engine").exists()
