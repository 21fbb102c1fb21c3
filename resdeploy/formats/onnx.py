"""A PyTorch module in, an ONNX graph with dynamic batch out.

PyTorch has two exporters, and each has written wrong graphs (pytorch/pytorch#169178, #166797,
#157621). Both are rows of EXPORTERS, with the same signature; what they write is verified.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import torch

from resdeploy.errors import VerificationError
from resdeploy.formats.signature import BATCH, INPUT, Signature

STDOUT = 1  # its file descriptor


def onnx_by_trace(module: torch.nn.Module, signature: Signature) -> ir.Model:
    """The graph of `module`, in eval mode, for a batch of any size; BatchNorm is not folded.

    The tracing exporter is the faster one. It is kept from the weights, which it would copy five
    times, and so cannot fold anything into them: they join the graph as they lie in the module.

    Raises:
        VerificationError: the module cannot be traced.
    """
    written = io.BytesIO()
    with _exporting(signature):
        torch.onnx.export(
            module,
            (signature.example(),),
            written,  # type: ignore[arg-type]  # it takes files, too
            dynamo=False,
            export_params=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # in eval mode it folds BatchNorm
            input_names=[INPUT],
            output_names=[signature.output],
            dynamic_axes={INPUT: {0: BATCH}, signature.output: {0: BATCH}},
            opset_version=signature.opset,
        )
    model = ir.from_proto(onnx.load_model_from_string(written.getvalue()))
    _take_weights(model.graph, module)
    return model


def _take_weights(graph: ir.Graph, module: torch.nn.Module) -> None:
    """Give the inputs that are called as the module's weights are those weights."""
    weights = module.state_dict()
    for value in [value for value in graph.inputs if value.name != INPUT]:
        name = value.name or ""
        graph.inputs.remove(value)
        value.const_value = ir.tensor(weights[name].numpy(), name=name)
        graph.register_initializer(value)


def onnx_by_dynamo(module: torch.nn.Module, signature: Signature) -> ir.Model:
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
    model: ir.Model = program.model
    return model


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
