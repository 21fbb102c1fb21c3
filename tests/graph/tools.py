"""Small graphs from ONNX text, real graphs from the family, and both quantized."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from resdeploy.contracts import Batch
from resdeploy.formats.onnx import onnx_by_trace
from resdeploy.formats.signature import Signature
from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.observe import with_observations
from resdeploy.graph.passes import FOLDING, apply_passes
from resdeploy.graph.qdq import editor, validate
from resdeploy.graph.qdq.editor import observed_tensors, rules_of
from resdeploy.graph.simplify import SIMPLIFIERS, SimplifierChild
from resdeploy.models.reference import LoadedModel, resolve
from resdeploy.pipeline.make_export import Export
from resdeploy.quantization.calibrate import calibrate
from resdeploy.quantization.histogram import histogram_of
from resdeploy.quantization.methods import minmax
from resdeploy.records import TensorFacts, TensorRange
from resdeploy.runtimes import OrtRunner
from resdeploy.runtimes.ort import Optimization

Weights = Mapping[str, NDArray[np.generic]]


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def proto(
    body: str,
    weights: Weights,
    *,
    inputs: str = "float[n,4,8,8] x",
    outputs: str = "float[n,5] y",
    opset: int = 20,
) -> onnx.ModelProto:
    """A valid model: ONNX text for the nodes, arrays for the initializers."""
    head = f'<ir_version: 9, opset_import: ["": {opset}]> g ({inputs}) => ({outputs})'
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    model.graph.initializer.extend(tensors)
    onnx.checker.check_model(model, full_check=True)
    return model


def exporting(loaded: LoadedModel, **more: Any) -> Export:
    """What `export_file` takes to export a model as it is."""
    return Export(loaded=loaded, preprocess=loaded.preprocess, name="x", **more)


def batch(images: NDArray[np.float32], *, start: int = 0) -> Batch:
    ids = tuple(f"image-{start + index}" for index in range(len(images)))
    return Batch(ids=ids, images=images, labels=None)


def ranges_of(
    source: Path, images: NDArray[np.float32], target: str = "ort-cpu"
) -> dict[str, TensorRange]:
    """What min/max calibration on `images` says of the float graph in `source`."""
    model = read_model(source)
    tensors = observed_tensors(model, rules_of(EMITTERS[target]))
    _, *shape = images.shape
    facts = TensorFacts(name="x", dtype="float", shape=(1, *shape))
    rows = with_observations(model, tensors, facts)
    observed = source.with_suffix(".observed.onnx")
    write_model(model, observed)
    with OrtRunner(observed, threads=1) as runner:
        batches = [batch(images)]
        channels = {row.name: row.channels for row in rows}
        found = calibrate(runner.run_all, channels, batches, hashes_of(batches))
    grid = EMITTERS[target].grid
    return {name: minmax(histogram_of(row), grid) for name, row in found.tensors.items()}


def hashes_of(batches: Sequence[Batch]) -> dict[str, str]:
    """A hash of the content of every image."""
    return {
        name: hashlib.sha256(batch.images[row].tobytes()).hexdigest()
        for batch in batches
        for row, name in enumerate(batch.ids)
    }


def quantized(
    source: Path,
    images: NDArray[np.float32],
    *,
    target: str = "ort-cpu",
    bits: int = 7,
    keep: Collection[str] = (),
) -> Path:
    """The Q/DQ graph of the float graph in `source`, beside it."""
    model = read_model(source)
    ranges = ranges_of(source, images, target)
    editor.quantize(model, ranges, rules_of(EMITTERS[target]), weight_bits=bits, keep=keep)
    result = source.with_suffix(f".{target}.int{bits}.onnx")
    write_model(model, result)
    return result


def problems(path: Path, target: str) -> tuple[str, ...]:
    """What the target's validator says of the graph in a file."""
    return problems_of(onnx.load(path), target)


def problems_of(proto: onnx.ModelProto, target: str) -> tuple[str, ...]:
    """What the target's validator says of a graph."""
    return validate.problems_of(model_of(proto), rules_of(EMITTERS[target]).checks)


def answer(path: Path, images: NDArray[np.float32], *, exact: bool = False) -> NDArray[np.float32]:
    """The first output; `exact` runs every node as it is written."""
    level = Optimization.NONE if exact else Optimization.ALL
    with OrtRunner(path, threads=1, optimization=level) as runner:
        return runner.run(images)


def sqnr_db(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    difference = candidate.astype(np.float64) - reference
    return float(10 * np.log10(np.square(reference).sum() / np.square(difference).sum()))


def exported(folder: Path, name: str, size: int, weights: str | None = None) -> Path:
    """The ONNX export of a model of the family."""
    loaded = resolve(name, weights)
    path = folder / f"{name}.onnx"
    shape = (len(loaded.preprocess.channels), size, size)
    model = onnx_by_trace(loaded.module, Signature(shape=shape))
    apply_passes(model, FOLDING)
    write_model(model, path)
    return path


def passed(folder: Path, name: str, size: int) -> Path:
    """The export of a model of the family, after our passes."""
    source = exported(folder, name, size)
    model = read_model(source)
    apply_passes(model)
    result = source.with_suffix(".passed.onnx")
    write_model(model, result)
    return result


def simplified(folder: Path, name: str, size: int) -> Path:
    """The export of a model of the family, after our passes and onnxsim, as the pipeline has it."""
    source = passed(folder, name, size)
    result = source.with_suffix(".simplified.onnx")
    with SimplifierChild(SIMPLIFIERS["onnxsim"]) as child:
        child.start(source, result)
        return result if child.changed() else source


def model_of(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(proto)
