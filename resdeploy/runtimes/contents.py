"""A program of PyTorch in, what is in it out: operators, weights, bytes by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from resdeploy.records import GraphSummary
from resdeploy.runtimes.programs import Pt2Runner, TorchScriptRunner

PLUMBING = ("prim::Constant", "prim::ListConstruct", "prim::TupleConstruct")


def contents_of_torchscript(path: Path) -> GraphSummary:
    """The facts of a TorchScript file, functions that it calls included.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    with TorchScriptRunner(path, threads=1) as runner:
        nodes = list(runner.program.inlined_graph.nodes())
        constants = [node.t("value") for node in nodes if _holds_tensor(node)]
        weights = [*runner.program.state_dict().values(), *constants]
        return _summary((node.kind() for node in nodes if node.kind() not in PLUMBING), weights)


def _holds_tensor(node: Any) -> bool:
    if node.kind() != "prim::Constant" or not node.hasAttribute("value"):
        return False
    return bool(node.kindOf("value") == "t")


def contents_of_pt2(path: Path) -> GraphSummary:
    """The facts of a file of torch.export.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    with Pt2Runner(path, threads=1) as runner:
        calls = [node for node in runner.program.graph.nodes if node.op == "call_function"]
        weights = list(runner.program.state_dict().values())
        return _summary((str(node.target) for node in calls), weights)


def _summary(operators: Iterable[str], weights: Iterable[Tensor]) -> GraphSummary:
    counts, bytes_by_dtype, params = Counter(operators), Counter[str](), 0
    for tensor in weights:
        bytes_by_dtype[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes
        params += tensor.numel() if tensor.numel() > 1 else 0
    return GraphSummary(
        opset=0,
        inputs=(),
        outputs=(),
        nodes=counts.total(),
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        params=params,
        bytes_by_dtype=dict(sorted(bytes_by_dtype.items())),
        precision="fp32",
    )
