"""Every kind of block of the family, quantized for every target."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model
from resdeploy.graph.qdq.nodes import is_pooled
from resdeploy.runtimes.ort import integer_layers
from tests.graph import tools

# Random weights and noise measure 29 to 41 dB; a pair at a wrong place or a wrong scale costs
# 10 dB and more.
MIN_SQNR_DB = 20.0

KINDS = {
    "plain": "resnet18",
    "bottleneck": "resnet26",
    "grouped": "seresnext26d_32x4d",
    "average-pooled shortcut": "resnet18d",
    "squeeze-and-excitation": "seresnet18",
    "efficient channel attention": "ecaresnet26t",
    "selective kernels": "skresnet18",
    "split attention": "resnest14d",
    "hierarchical": "res2net50_26w_4s",
    "pre-activation": "resnetv2_18",
    "group norm": "resnetv2_50x1_bit",
    "blur": "resnetblur18",
    "padded shortcut": "resnet20",
}


# Random group norms make chaos of any rounding: noise 40 dB below this model's images comes out
# 12 dB below its answers. So only what is behind the middle of its last stage is rounded.
QUANTIZED_NODES = {"resnetv2_50x1_bit": 40}


def kept(source: Path, name: str) -> list[str]:
    """The names of the nodes to leave in float."""
    if name not in QUANTIZED_NODES:
        return []
    return [node.name for node in onnx.load(source).graph.node][: -QUANTIZED_NODES[name]]


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_every_block_is_quantized_for_every_target(name: str, tmp_path: Path) -> None:
    images = tools.noise(4, 3, 64, 64)
    source = tools.passed(tmp_path, name, 64)
    floats = tools.answer(source, images)
    for emitter in EMITTERS:
        path = tools.quantized(source, images, target=emitter.name, bits=8, keep=kept(source, name))
        assert tools.problems(path, emitter.name) == (), emitter.name
        sqnr_db = tools.sqnr_db(floats, tools.answer(path, images, exact=True))
        assert sqnr_db > MIN_SQNR_DB, emitter.name


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_onnx_runtime_runs_every_convolution_on_integers(name: str, tmp_path: Path) -> None:
    """All that are quantized, but for the gates, which have one value per channel."""
    source = tools.passed(tmp_path, name, 64)
    graph = read_model(source).graph
    floats = set(kept(source, name)) | {
        node.name for node in graph if node.op_type == "Conv" and is_pooled(node.outputs[0])
    }
    wanted = {str(node.name) for node in graph if node.op_type == "Conv"} - floats
    images = tools.noise(2, 3, 64, 64)
    path = tools.quantized(source, images, bits=8, keep=kept(source, name))
    found = {layer.split("_token_")[0] for layer in integer_layers(path)}
    assert wanted
    assert wanted <= found
