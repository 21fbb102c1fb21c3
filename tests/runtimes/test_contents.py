"""What is in programs of PyTorch: what nodes compute in, and how many products they add up."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resdeploy.records import GraphSummary, TensorFacts
from resdeploy.runtimes.contents import contents_of_pt2, contents_of_torchscript

# Of one image [4, 8, 8]: 6 channels of [8, 8] from 2 by 3 by 3 each; 64 pixels to 3 by 4 each;
# then a row of 5 from 3, and one of 2 from 5.
CONV, TRANSPOSED, LINEAR, PRODUCT = 6 * 64 * 18, 6 * 64 * 12, 15, 10
IMAGES = TensorFacts(name="images", dtype="float", shape=("batch", 4, 8, 8))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 3, 2, stride=2)
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        row: Tensor = self.fc(self.up(self.conv(x)).mean((2, 3)))
        return row @ torch.ones(5, 2, dtype=x.dtype)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = torch.matmul(x, x)
        return x


def exported(path: Path, module: nn.Module, *shape: int, dims: tuple[int, ...] = ()) -> Path:
    """A pt2 file with these dimensions open."""
    like = next(module.parameters())
    shapes = ({dim: torch.export.Dim.AUTO for dim in dims},)
    program = torch.export.export(
        module.eval(), (torch.zeros(*shape, dtype=like.dtype),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


def traced(path: Path, module: nn.Module, *, freeze: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.trace(module.eval(), torch.zeros(2, 4, 8, 8))
        torch.jit.save(torch.jit.freeze(script) if freeze else script, path)
    return path


def macs_of(found: GraphSummary) -> dict[str, int | None]:
    """The MACs of what has any, by the operator's own name."""
    rows = [row for row in found.by_precision if row.macs != 0]
    names = [row.operator.replace("::", ".").split(".")[1] for row in rows]
    return dict(zip(names, (row.macs for row in rows), strict=True))


@pytest.mark.parametrize("freeze", [True, False])
def test_torchscript_is_known_by_a_run(freeze: bool, tmp_path: Path) -> None:
    path = traced(tmp_path / "x.torchscript", Small(), freeze=freeze)
    found = contents_of_torchscript(path, IMAGES)
    assert found.macs == CONV + TRANSPOSED + LINEAR + PRODUCT
    assert macs_of(found) == {
        "_convolution": CONV + TRANSPOSED, "linear": LINEAR, "matmul": PRODUCT,
    }  # fmt: skip
    said = {row.operator: row.precision for row in found.by_precision if "aten" in row.operator}
    assert set(said.values()) == {"fp32"}
    assert len({node.name for node in found.node_facts}) == found.nodes == len(found.node_facts)
    several = IMAGES.model_copy(update={"shape": (3, 4, 8, 8)})
    assert contents_of_torchscript(path, several).macs == found.macs


def test_torchscript_without_a_run_says_what_it_can(tmp_path: Path) -> None:
    path = traced(tmp_path / "x.torchscript", Small(), freeze=True)
    ran, found = contents_of_torchscript(path, IMAGES), contents_of_torchscript(path)
    assert found.macs is None
    assert {node.precision for node in found.node_facts} == {""}
    assert (found.operators, found.params) == (ran.operators, ran.params)
    # Images that it cannot take are no reason to say less than without them.
    wrong = IMAGES.model_copy(update={"shape": ("batch", 3, 8, 8)})
    assert contents_of_torchscript(path, wrong) == found


def test_a_branch_may_hold_anything(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(Branching())
        torch.jit.save(script, tmp_path / "x.torchscript")
    found = contents_of_torchscript(tmp_path / "x.torchscript", IMAGES)
    assert "prim::If" in found.operators
    assert found.macs is None


def test_pt2_says_its_shapes(tmp_path: Path) -> None:
    path = exported(tmp_path / "x.pt2", Small(), 2, 4, 8, 8, dims=(0,))
    found = contents_of_pt2(path)
    assert macs_of(found) == {
        "conv2d": CONV, "conv_transpose2d": TRANSPOSED, "linear": LINEAR, "matmul": PRODUCT,
    }  # fmt: skip
    assert found.macs == CONV + TRANSPOSED + LINEAR + PRODUCT
    assert {node.precision for node in found.node_facts} == {"fp32"}
    (taken,), (given,) = found.inputs, found.outputs
    assert (taken.name, taken.dtype, taken.shape) == ("x", "float32", ("batch", 4, 8, 8))
    assert given.shape == ("batch", 2)
    assert any(node.name.startswith("conv.") for node in found.node_facts)


def test_pt2_for_a_fixed_number_of_images(tmp_path: Path) -> None:
    found = contents_of_pt2(exported(tmp_path / "x.pt2", Small(), 4, 4, 8, 8))
    assert macs_of(found)["conv2d"] == CONV
    assert found.inputs[0].shape == (4, 4, 8, 8)


def test_pt2_for_images_of_any_size(tmp_path: Path) -> None:
    path = exported(tmp_path / "x.pt2", Small(), 2, 4, 10, 12, dims=(0, 2, 3))
    found = contents_of_pt2(path)
    assert found.macs is None
    assert macs_of(found) == {
        "conv2d": None, "conv_transpose2d": None, "linear": LINEAR, "matmul": PRODUCT,
    }  # fmt: skip
    assert contents_of_pt2(path, IMAGES).macs == CONV + TRANSPOSED + LINEAR + PRODUCT


def test_pt2_in_float16(tmp_path: Path) -> None:
    found = contents_of_pt2(exported(tmp_path / "x.pt2", Small().half(), 2, 4, 8, 8, dims=(0,)))
    assert found.precision == "fp16"
    assert {node.precision for node in found.node_facts} == {"fp16"}
    assert found.macs == CONV + TRANSPOSED + LINEAR + PRODUCT
