"""A PyTorch module in, a pt2 file (torch.export) out, for batches within bounds.

The file needs PyTorch alone, not this package nor the classes of the module.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from resdeploy.errors import VerificationError
from resdeploy.formats.signature import Signature


def pt2_from_module(module: torch.nn.Module, signature: Signature) -> torch.export.ExportedProgram:
    """Export `module`, in eval mode; the program refuses a batch outside its bounds.

    Raises:
        VerificationError: torch.export cannot express the module, or its batch cannot vary.
    """
    bounds = {"min": signature.least, "max": signature.greatest}
    varies = signature.least < signature.greatest
    shapes = ({0: torch.export.Dim("batch", **bounds) if varies else None},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals
        try:
            return torch.export.export(
                module, (signature.example(),), dynamic_shapes=shapes, strict=False
            )
        except Exception as error:  # its errors have no common base
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise VerificationError(
                f"torch.export failed on images {signature}: {first}",
                hint="the model may branch on the values or the number of its images",
            ) from error


def write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write it to `path`."""
    # In memory first: the names inside the archive are then the same for every path.
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals
        torch.export.save(program, written)
    path.write_bytes(written.getbuffer())
