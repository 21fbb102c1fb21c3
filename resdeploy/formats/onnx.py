"""A PyTorch module in, an ONNX file with dynamic batch and folded BatchNorm out."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from resdeploy.errors import VerificationError

INPUT = "input"
OUTPUT = "logits"
BATCH = "batch"

# ONNX Runtime 1.31 reads it, and its Q/DQ operators take float16 scales (since opset 19).
OPSET = 20

STDOUT = 1  # its file descriptor

# protobuf's limit is 2 GiB; what is not weights in a ResNet's graph is far below 16 MiB.
LARGEST_BYTES = 2**31 - 2**24


def onnx_from_module(
    module: torch.nn.Module, path: Path, *, image_shape: tuple[int, int, int]
) -> None:
    """Export `module`, in eval mode, to `path`: `input` [batch, C, H, W] to `logits`.

    The tracing exporter folds each BatchNorm into the convolution before it. It is used
    because it is several times faster than the exporter on torch.export (resnet50: 0.9 s
    against 6.2 s), and every file it writes is verified before it is kept.

    Raises:
        VerificationError: the module cannot be traced, or is too large for one ONNX file.
    """
    _refuse_too_large(module)
    example = torch.zeros(2, *image_shape)
    written = io.BytesIO()  # so that a full disk is met below, where its error is plain
    with warnings.catch_warnings(), _exporter_is_quiet():
        # It warns that it is the older exporter, and that shapes become constants: `verify`
        # finds out whether any that matters did.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                (example,),
                written,  # type: ignore[arg-type]  # this exporter takes files too
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
                opset_version=OPSET,
            )
        except Exception as error:  # the exporter's errors have no common base
            raise VerificationError(
                f"torch.onnx.export failed on images {list(image_shape)}: {_reason(error)}",
                hint="images of this size may be too small for this model (see --size), or the "
                "tracing exporter has no ONNX operator for a part of it",
            ) from error
    path.write_bytes(written.getbuffer())


def _refuse_too_large(module: torch.nn.Module) -> None:
    tensors = (*module.parameters(), *module.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > LARGEST_BYTES:
        raise VerificationError(
            f"the weights take {size / 1e9:.2f} GB, and one ONNX file holds less than "
            f"{LARGEST_BYTES / 1e9:.2f} GB",
            hint="weights in a file of their own (external data) are not written yet; choose a "
            "smaller model",
        )


def _reason(error: Exception) -> str:
    """The first sentence of an exporter's error; it goes on with the whole graph."""
    first = str(error).partition("\n")[0].partition("[Caused by")[0].strip()
    return first or type(error).__name__


@contextlib.contextmanager
def _exporter_is_quiet() -> Iterator[None]:
    """On failure the exporter's C++ prints the whole graph to stdout, which is for the product.

    Its own switch does not work in torch 2.13 (`setup_onnx_logging` turns the log on).
    """
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), STDOUT)
            yield
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)
