"""A PyTorch module in, a TorchScript file out: traced, frozen, with a batch of any size.

Upstream has deprecated TorchScript in favour of torch.export (format `pt2`), and keeps loading
it. The file needs libtorch alone, not this package nor the classes of the module.

`torch.jit.optimize_for_inference` is left to whoever loads the file: on a CPU it makes weights of
oneDNN's own layout, and torch 2.13 cannot save them.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from resdeploy.errors import VerificationError
from resdeploy.formats.signature import Signature


def torchscript_from_module(
    module: torch.nn.Module, signature: Signature
) -> torch.jit.ScriptModule:
    """Trace `module`, in eval mode, and freeze it.

    Freezing makes constants of the weights, which folds BatchNorm and drops dead branches.

    Raises:
        VerificationError: the module cannot be traced.
    """
    with warnings.catch_warnings():
        # It warns that it is deprecated, and of shapes that become constants: the file is
        # verified at other batch sizes before it is kept.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(module, signature.example(), check_trace=False)  # type: ignore[no-untyped-call]
            frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
        except Exception as error:  # the tracer's errors have no common base
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise VerificationError(
                f"torch.jit.trace failed on images {signature}: {first}",
                hint="images of this size may be too small for this model (see --size)",
            ) from error
    return frozen


def write_torchscript(program: torch.jit.ScriptModule, path: Path) -> None:
    """Write it to `path`.

    The file holds the paths of the Python files that were traced, for error messages: it is
    the same only from the same installation.
    """
    # In memory first: the names inside the archive are then the same for every path.
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        torch.jit.save(program, written)
    path.write_bytes(written.getbuffer())
