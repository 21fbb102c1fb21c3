"""`show`: a model in, its layers and what they cost out.

Part of the Python API.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.errors import UsageError
from resdeploy.models.reference import AS_NAMED, outline, resolve
from resdeploy.models.summary import TreeRow, tree_of
from resdeploy.pipeline import make
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.records import ModelOptions, Record

FLOAT_BYTES = 4  # of a float32, which all weights and activations here are


class Shown(Record):
    """A model module by module, the root first; see TreeRow.

    trainable_params: of `params`, those that take gradients.
    input_bytes: of one image, `input_shape` [C, H, W].
    forward_bytes: outputs of all layers that have parameters, for one image, which is how
        torchinfo counts; it doubles the number for the gradients of training.
    """

    name: str
    params: int
    trainable_params: int
    macs: int
    input_shape: tuple[int, ...]
    input_bytes: int
    forward_bytes: int
    params_bytes: int
    layers: tuple[TreeRow, ...]


def show(
    model: str,
    *,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    size: int | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Shown:
    """Kind, output shape, parameters and MACs of every module, for one image.

    weights: for a checkpoint with other classes or channels than the model has by its name.
    size: edge of the image in pixels, where it is not the model's own.

    Raises:
        UnknownNameError: no such model.
        UsageError: an option makes no sense for it, or it cannot take images of this size.
        WeightsError: the weights do not fit or cannot be read.
    """
    if weights is None:
        loaded = outline(model, options=options, size=size)
    else:
        loaded = resolve(model, weights, options=options, size=size, progress=progress)
    make.tell_notes(loaded, notify)
    preprocess = chosen_preprocess(loaded.preprocess, InputChoice(size=size))
    shape = make.image_shape(loaded.facts.in_channels, preprocess)
    try:
        layers = tree_of(loaded.module, shape)
    except RuntimeError as error:
        raise UsageError(
            f"{model} cannot take images {list(shape)}: {error}", hint="choose another --size"
        ) from error
    return Shown(
        name=model,
        params=loaded.facts.params,
        trainable_params=loaded.trainable,
        macs=layers[0].macs,
        input_shape=shape,
        input_bytes=math.prod(shape) * FLOAT_BYTES,
        forward_bytes=_forward_bytes(layers),
        params_bytes=loaded.facts.params * FLOAT_BYTES,
        layers=layers,
    )


def _forward_bytes(layers: Sequence[TreeRow]) -> int:
    with_params = {row.name for row in layers if row.own_params}
    outputs = [row.output_shape for row in layers if row.leaf and row.name in with_params]
    return sum(math.prod(shape) for shape in outputs if shape) * FLOAT_BYTES
