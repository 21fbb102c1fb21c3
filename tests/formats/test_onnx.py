"""Export to ONNX: dynamic batch, the promised names, no BatchNorm, the same bytes always."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resdeploy.errors import VerificationError
from resdeploy.formats import FORMATS
from resdeploy.formats.onnx import onnx_by_trace
from resdeploy.formats.signature import OPSET, Signature
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.summary import summary_of
from resdeploy.models.reference import resolve
from resdeploy.pipeline.make_export import export_file
from tests.graph import tools
from tests.graph.tools import exporting

EXPORT = """
import hashlib, sys
from pathlib import Path
from resdeploy.formats.onnx import onnx_by_trace
from resdeploy.formats.signature import Signature
from resdeploy.graph.files import write_model
from resdeploy.models.reference import resolve
path = Path(sys.argv[1])
write_model(
    onnx_by_trace(resolve("resnet20", "random:3").module, Signature(shape=(3, 32, 32))), path
)
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    here = tmp_path / "here.onnx"
    module = resolve("resnet20", "random:3").module
    write_model(onnx_by_trace(module, Signature(shape=(3, 32, 32))), here)
    there = subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path / "there.onnx")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert there.stdout.strip() == hashlib.sha256(here.read_bytes()).hexdigest()


def test_names_batch_and_folded_batchnorm(tmp_path: Path) -> None:
    path = tools.exported(tmp_path, "resnet20", 32)
    summary = summary_of(read_model(path))
    (image,), (logits,) = summary.inputs, summary.outputs
    assert (image.name, image.shape) == ("input", ("batch", 3, 32, 32))
    assert (logits.name, logits.shape) == ("logits", ("batch", 10))
    assert summary.opset == OPSET
    assert "BatchNormalization" not in summary.operators
    assert summary.operators["Conv"] == 19
    module = resolve("resnet20", None).module
    for batch in (1, 2, 5):
        images = tools.noise(batch, 3, 32, 32, seed=batch)
        with torch.inference_mode():
            expected = module(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(tools.answer(path, images), expected, rtol=0, atol=1e-4)


def test_a_module_that_cannot_be_traced() -> None:
    module = resolve("resnet20", None).module
    with pytest.raises(VerificationError, match=r"failed on images \[4, 32, 32\]") as raised:
        onnx_by_trace(module, Signature(shape=(4, 32, 32)))
    assert "--size" in raised.value.hint


def test_an_exporter_that_fails_says_why_in_a_sentence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Inexpressible(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x)[0]

    with pytest.raises(VerificationError, match="linalg_qr") as raised:
        onnx_by_trace(Inexpressible().eval(), Signature(shape=(3, 8, 8)))
    assert "\n" not in raised.value.message
    assert capfd.readouterr().out == ""


def test_a_verified_export_says_what_was_checked(tmp_path: Path) -> None:
    loaded = resolve("resnet20", None)
    path = tmp_path / "x.onnx"
    manifest = export_file(exporting(loaded), path)
    assert [check.name for check in manifest.verification] == [
        *("agreement-batch-1", "agreement-batch-2", "agreement-batch-3"),
        *("identical-rows", "permuted-rows"),
        *("finite-on-zeros", "finite-on-ones", "finite-on-255"),
        *("names", "types", "dynamic-batch", "batchnorm-folded"),
    ]
    assert all(check.passed for check in manifest.verification)
    assert manifest.model is not None
    assert manifest.model.trained is False


def test_a_batchnorm_stays_where_a_shortcut_reads_the_convolution_too(tmp_path: Path) -> None:
    loaded = resolve("preact_resnet20", None)
    path = tmp_path / "x.onnx"
    export_file(exporting(loaded), path)
    # Behind the stem and each of the nine sums; those between two convolutions are folded.
    assert summary_of(read_model(path)).operators["BatchNormalization"] == 1 + 9


class Batched(torch.nn.Module):
    """Answers differently from what the tracer writes down: it looks at the batch size."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = images.mean(dim=(2, 3))
        return logits * len(images) if len(images) > 2 else logits


def test_a_model_that_the_tracer_gets_wrong_is_not_exported(tmp_path: Path) -> None:
    from dataclasses import replace

    loaded = replace(resolve("resnet20", None), module=Batched())
    with pytest.raises(VerificationError, match="agreement-batch-3 is "):
        export_file(exporting(loaded), tmp_path / "x.onnx")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in FORMATS])
def test_rows_are_complete(row: object) -> None:
    from resdeploy.formats import Format

    assert isinstance(row, Format)
    assert row.suffix.startswith(".")
    assert row.precisions
