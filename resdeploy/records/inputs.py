"""What a model takes and where it and its images come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from resdeploy.records.base import Record
from resdeploy.words import (
    ChannelOrder,
    FloatType,
    Head,
    Interpolation,
    NormChoice,
    WeightBitsChoice,
)

Positive = Annotated[int, Field(gt=0)]


class Preprocess(Record):
    """How an image file becomes a model's input; it travels in every sidecar.

    In order: convert to `channels`; resize the shorter edge to `resize` pixels; cut `crop`
    by `crop` pixels from the centre; scale to [0, 1]; subtract `mean`, divide by `std`
    (both in the order of `channels`). After that an image is `size` by `size`, or it is
    refused.
    """

    size: Positive
    resize: Positive | None = None
    crop: Positive | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: tuple[FiniteFloat, ...] = (0.485, 0.456, 0.406)
    std: tuple[FiniteFloat, ...] = (0.229, 0.224, 0.225)
    channels: ChannelOrder = ChannelOrder.RGB

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.mean) == len(self.std) == len(self.channels):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; channels "
                f"{self.channels} needs {len(self.channels)}"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std {self.std} must be positive")
        if self.crop is not None and self.crop != self.size:
            raise ValueError(f"crop {self.crop} must equal the input size {self.size}")
        return self


class BatchProfile(Record):
    """The batch sizes an artifact is meant for: the least, the usual and the greatest."""

    min: Positive = 1
    opt: Positive = 1
    max: Positive = 32

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} must be in order")
        return self


class TensorFacts(Record):
    """A graph input or output; a named dimension is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ModelOptions(Record):
    """How a model differs from the one its name stands for; what is None stays as it is.

    width: factor on the channels of the stem and of every stage.
    output_stride: edge of the input over that of the last feature map; later stages are
        dilated instead of strided, so that weights still fit.
    """

    num_classes: Positive | None = None
    in_channels: Positive | None = None
    norm: NormChoice | None = None
    width: Annotated[FiniteFloat, Field(gt=0)] | None = None
    output_stride: Literal[8, 16, 32] | None = None


class ExportOptions(Record):
    """How a model is written to a file, and what the file takes and gives.

    exporter: "auto" takes the first that writes a right file, "both" tries all and says how
        they compare; or the name of one.
    opset: of ONNX; None is the newest that all runtimes take.
    embed_preprocess: the file takes uint8 [N, H, W, C] and normalises inside.
    """

    exporter: str = "auto"
    opset: Positive | None = None
    head: Head = Head.LOGITS
    embed_preprocess: bool = False


class CastOptions(Record):
    """How a graph becomes float16.

    io: the type of its inputs and outputs. keep: names or operator types of nodes to leave
        in float32.
    """

    io: FloatType = FloatType.FP32
    keep: tuple[str, ...] = ()


class QuantizeOptions(Record):
    """How a graph becomes INT8.

    method: how much of each tensor's range is kept. weight_bits: "auto" asks the CPU.
    pixel_grid: round images to the steps of their pixels. equalize: even out channels of very
        different range. round_weights: for the images, not to the nearest. correct_bias: take
        the mean of the error out of each layer's answer.
    keep: names of nodes to leave in float.
    """

    method: str = "mse"
    weight_bits: WeightBitsChoice = WeightBitsChoice.AUTO
    pixel_grid: bool = True
    equalize: bool = True
    round_weights: bool = True
    correct_bias: bool = True
    keep: tuple[str, ...] = ()


class Interface(Record):
    """What a file takes and gives.

    pixels: uint8 [N, H, W, C], RGB or grey, which it normalises inside; otherwise images
        [N, C, H, W] as `Preprocess` makes them.
    """

    head: Head = Head.LOGITS
    pixels: bool = False


class ModelFacts(Record):
    """The PyTorch model an artifact was made from.

    weights: the reference, as written. weights_sha256: of the file, or of the state dict where
        the model brings its own.
    options: what was asked for beyond the reference, so that the same can be made again.
    weights_origin: where weights came from: a URL, or `hf:ORG/REPO@COMMIT/file`.
    state_sha256, probe: of a model that is not ours, so that one whose code has changed is
        known when it is made again: a digest of its state dict and its printed structure, and
        its first logits for an image of seeded noise of the size that it was made for.
    """

    reference: str
    weights: str
    weights_sha256: str | None
    trained: bool
    num_classes: int
    in_channels: int
    params: int
    options: ModelOptions = ModelOptions()
    weights_origin: str = ""
    state_sha256: str | None = None
    probe: tuple[float, ...] = ()


class DataFacts(Record):
    """A data source: `digest` is the sha256 over its images' content hashes and labels."""

    reference: str
    samples: int
    labelled: bool
    synthetic: bool
    digest: str
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
