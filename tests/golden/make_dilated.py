"""Writes dilated.json: timm's answers with output_stride, for weights and inputs of fill.py.

Run with timm 1.0.31 and torch installed: python tests/golden/make_dilated.py
"""

from __future__ import annotations

import json
from pathlib import Path

import fill
import timm
import torch

NAMES = ("resnet18", "resnet50d", "seresnet50", "resnetv2_18", "resnetv2_50d")
HERE = Path(__file__).parent


def logits(name: str, stride: int) -> list[float]:
    """The first eight logits in float64 of the first image of the odd probe."""
    model = timm.create_model(name, output_stride=stride).eval()
    state = model.state_dict()
    model.load_state_dict(
        {key: torch.from_numpy(fill.fill(key, tensor.shape)) for key, tensor in state.items()}
    )
    model.double()
    with torch.no_grad():
        answer = model(torch.from_numpy(fill.probe_input("odd")).double())
    return answer[0, :8].tolist()


if __name__ == "__main__":
    facts = {f"{name} {stride}": logits(name, stride) for name in NAMES for stride in (8, 16)}
    (HERE / "dilated.json").write_text(json.dumps(facts, indent=1) + "\n")
