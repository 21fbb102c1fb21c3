"""A float ONNX file and its preprocessed images enter; the INT8 graph of a peer leaves.

    python benchmarks/peer_quantize.py PEER FP32.onnx IMAGES.npy INT8.onnx

The peers of `int8_fidelity.py` and `int8_latency.py`, which run this in a process of its own,
with a Python that has the peer. `PEERS` holds them, each with what its documentation recommends:

- ONNX Runtime: `quant_pre_process`, then `quantize_static` with Q/DQ pairs and per-channel
  weights, one image at a time. U8 activations are for CPUs, with `reduce_range` (7-bit weights)
  where the CPU has no VNNI; symmetric S8 activations, with the biases left in float, are what
  TensorRT reads. `entropy` has the 128 bins that `quantize_static` gives it.
- NNCF: `nncf.quantize` for CPUs, on all images; `accurate` has `fast_bias_correction=False`. Its
  default ranges are means of those of single images, which cost it 6 to 7 dB on CIFAR-10
  ResNets; `minmax` has those of all images.
- Model-Optimizer: `modelopt.onnx.quantization.quantize`, Q/DQ pairs where TensorRT fuses them,
  the rest of the graph in float32 so that INT8 is all that is measured. Its entropy ranges
  depend on the batch: of 1, 16, 32, 64 and 128 images at a time, 16 and 32 gave the best ones.

The Python of a peer need not have resdeploy: nothing of it is imported here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODELOPT_BATCH = 32
PERCENTILE = 99.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a peer is given: images is a float32 array [N, C, H, W] in a .npy file."""

    model: Path
    images: Path
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A quantizer of other people with one choice of its settings.

    package: its distribution, by whose presence a Python is chosen.
    kind: what its graph is comparable with: "cpu", "cpu-7bit" or "tensorrt".
    """

    name: str
    package: str
    kind: str
    quantize: Callable[[Job, dict[str, Any]], None]
    settings: dict[str, Any] = field(default_factory=dict)


def images_of(job: Job) -> Any:
    """float32 [N, C, H, W], read from disk as it is needed."""
    import numpy as np

    return np.load(job.images, mmap_mode="r")


def input_of(job: Job) -> str:
    """The name of the graph's only input."""
    import onnx

    return str(onnx.load(job.model, load_external_data=False).graph.input[0].name)


def by_onnxruntime(job: Job, settings: dict[str, Any]) -> None:
    """`quant_pre_process` and `quantize_static`, as the documentation has them."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped library
        """Hands the images over one by one."""

        def __init__(self) -> None:
            name, images = input_of(job), images_of(job)
            self.images = ({name: images[i : i + 1].copy()} for i in range(len(images)))

        def get_next(self) -> dict[str, Any] | None:
            """The next image, or None after the last."""
            return next(self.images, None)

    with tempfile.TemporaryDirectory(prefix="resdeploy-peer-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(job.model), str(prepared))
        quantize_static(
            str(prepared),
            str(job.output),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            **named_by_onnxruntime(settings),
        )


def named_by_onnxruntime(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with ONNX Runtime's own values for the words of a row."""
    from onnxruntime.quantization import CalibrationMethod, QuantType

    types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    return {
        "activation_type": types[settings["activations"]],
        "weight_type": QuantType.QInt8,
        "reduce_range": settings.get("reduce_range", False),
        "calibrate_method": CalibrationMethod[settings["method"]],
        "extra_options": settings.get("extra_options", {}),
    }


def by_nncf(job: Job, settings: dict[str, Any]) -> None:
    """`nncf.quantize` on the ONNX graph, with all images."""
    import nncf
    import onnx

    name, images = input_of(job), images_of(job)
    quantized = nncf.quantize(
        onnx.load(job.model),
        nncf.Dataset(range(len(images)), lambda i: {name: images[i : i + 1].copy()}),
        subset_size=len(images),
        target_device=nncf.TargetDevice.CPU,
        fast_bias_correction=settings["fast_bias_correction"],
        advanced_parameters=advanced_by_nncf(settings),
    )
    onnx.save(quantized, job.output)


def advanced_by_nncf(settings: dict[str, Any]) -> Any:
    """NNCF's advanced parameters with what a row says about ranges and 7-bit weights."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = AdvancedQuantizationParameters()
    if "ranges" in settings:
        ranges = getattr(RangeEstimatorParametersSet, settings["ranges"])
        advanced.activations_range_estimator_params = ranges
    if "overflow_fix" in settings:
        advanced.overflow_fix = OverflowFix[settings["overflow_fix"]]
    return advanced


def by_modelopt(job: Job, settings: dict[str, Any]) -> None:
    """`modelopt.onnx.quantization.quantize` on the CPU."""
    from modelopt.onnx.quantization import quantize

    name, images = input_of(job), images_of(job)
    batch = min(MODELOPT_BATCH, len(images))
    shape = "x".join(str(edge) for edge in (batch, *images.shape[1:]))
    with tempfile.TemporaryDirectory(prefix="resdeploy-peer-") as folder:
        model = Path(folder) / job.model.name  # it writes intermediate files beside its input
        model.write_bytes(job.model.read_bytes())
        quantize(
            str(model),
            calibration_data={name: images[: len(images) // batch * batch]},
            calibration_method=settings["method"],
            calibration_shapes=f"{name}:{shape}",
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(job.output),
        )


_PERCENTILE = {"CalibPercentile": PERCENTILE, "CalibTensorRangeSymmetric": False}
# TensorRT reads neither zero points nor INT32 biases.
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def _onnxruntime(name: str, kind: str, **settings: Any) -> Peer:
    return Peer(
        name=name, package="onnxruntime", kind=kind, quantize=by_onnxruntime, settings=settings
    )


def _nncf(name: str, kind: str, **settings: Any) -> Peer:
    return Peer(name=name, package="nncf", kind=kind, quantize=by_nncf, settings=settings)


def _modelopt(name: str, **settings: Any) -> Peer:
    return Peer(
        name=name,
        package="nvidia-modelopt",
        kind="tensorrt",
        quantize=by_modelopt,
        settings=settings,
    )


_ROWS = (
    _onnxruntime("ort-u8-minmax", "cpu", activations="u8", method="MinMax"),
    _onnxruntime(
        "ort-u8-percentile",
        "cpu",
        activations="u8",
        method="Percentile",
        extra_options=_PERCENTILE,
    ),
    _onnxruntime("ort-u8-entropy", "cpu", activations="u8", method="Entropy"),
    _nncf("nncf", "cpu", fast_bias_correction=True),
    _nncf("nncf-accurate", "cpu", fast_bias_correction=False),
    _nncf("nncf-accurate-minmax", "cpu", fast_bias_correction=False, ranges="MINMAX"),
    _onnxruntime(
        "ort-u8-minmax-7bit", "cpu-7bit", activations="u8", method="MinMax", reduce_range=True
    ),
    _nncf(
        "nncf-accurate-minmax-7bit",
        "cpu-7bit",
        fast_bias_correction=False,
        ranges="MINMAX",
        overflow_fix="ENABLE",
    ),
    _onnxruntime(
        "ort-s8-minmax", "tensorrt", activations="s8", method="MinMax", extra_options=_SYMMETRIC
    ),
    _onnxruntime(
        "ort-s8-percentile",
        "tensorrt",
        activations="s8",
        method="Percentile",
        extra_options={"CalibPercentile": PERCENTILE, **_SYMMETRIC},
    ),
    _onnxruntime(
        "ort-s8-entropy", "tensorrt", activations="s8", method="Entropy", extra_options=_SYMMETRIC
    ),
    _modelopt("modelopt-max", method="max"),
    _modelopt("modelopt-entropy", method="entropy"),
)
PEERS = {row.name: row for row in _ROWS}


def main() -> None:
    """Parse, quantize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    peer = PEERS[given.peer]
    job = Job(model=given.model, images=given.images, output=given.output)
    peer.quantize(job, peer.settings)


if __name__ == "__main__":
    main()
