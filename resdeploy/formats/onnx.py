"""A PyTorch module in, an ONNX file with dynamic batch and folded BatchNorm out.

PyTorch has two exporters, and each has written wrong graphs (pytorch/pytorch#169178, #166797,
#157621). Both are rows of EXPORTERS, with the same signature; what they write is verified.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from resdeploy.errors import VerificationError
from resdeploy.formats.signature import BATCH, INPUT, Signature

STDOUT = 1  # its file descriptor

# protobuf's limit is 2 GiB; what is not weights in a ResNet's graph is far below 16 MiB. Beyond it
# exporters write weights into files of their own, beside the graph.
LARGEST_BYTES = 2**31 - 2**24


def onnx_by_trace(module: torch.nn.Module, path: Path, signature: Signature) -> None:
    """Export `module`, in eval mode, to `path`, with a batch of any size.

    The tracing exporter folds each BatchNorm into the convolution before it, and is the
    faster one (resnet50: 0.9 s against 6.2 s).

    Raises:
        VerificationError: the module cannot be traced.
    """
    with _exporting(signature):
        torch.onnx.export(
            module,
            (signature.example(),),
            str(path),
            dynamo=False,
            input_names=[INPUT],
            output_names=[signature.output],
            dynamic_axes={INPUT: {0: BATCH}, signature.output: {0: BATCH}},
            opset_version=signature.opset,
        )


def onnx_by_dynamo(module: torch.nn.Module, path: Path, signature: Signature) -> None:
    """The same by the exporter on torch.export, which does not depend on one run's shapes.

    Raises:
        VerificationError: torch.export cannot express the module.
    """
    with _exporting(signature):
        program = torch.onnx.export(
            module,
            (signature.example(),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[signature.output],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            opset_version=signature.opset,
            verbose=False,
        )
        assert program is not None  # it is where no file is named
    if is_large(module):
        program.save(path, external_data=True)
    else:
        path.write_bytes(program.model_proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _exporting(signature: Signature) -> Iterator[None]:
    """Whatever an exporter says or raises, in a sentence.

    They warn of their age, and that shapes become constants: `verify` finds out whether any
    that matters did.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), _exporter_is_quiet():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)  # it warns of operators of torchvision that nobody uses
        try:
            yield
        except OSError:  # a full disk, say: it is no fault of the exporter
            raise
        except Exception as error:  # the exporters' errors have no common base
            raise VerificationError(
                f"torch.onnx.export failed on images {signature}: {_reason(error)}",
                hint="images of this size may be too small for this model (see --size), or the "
                "exporter has no ONNX operator for a part of it",
            ) from error
        finally:
            logger.setLevel(level)


def is_large(module: torch.nn.Module) -> bool:
    """Whether the weights do not go into one ONNX file; exporters then write more of them."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) > LARGEST_BYTES


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
