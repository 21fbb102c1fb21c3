"""A model or an artifact in, a Runner out: images in, logits out.

A runtime is a row of `RUNTIMES`: the formats it runs, the extra that installs it, the
module that proves it is there, and the Runner's factory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, has_module, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Who runs an artifact. `target` makes a Runner from (path, threads).

    integer_layers: from (path), the names of the nodes that it computes on integers, with what it
    puts behind them; empty where it computes none so, or does not say. simulates: the runtimes
    whose files it runs as they are written, where those are not here; it is slow, and so is
    never timed, and no target of a recipe. runs_code: whether its files are code, of which one
    without a sidecar runs only where the user vouches for it (`trusted=True`).
    """

    name: str
    formats: tuple[str, ...]
    module: str
    extra: str
    target: str
    integer_layers: str = ""
    simulates: tuple[str, ...] = ()
    runs_code: bool = False

    def is_installed(self) -> bool:
        """Whether the runtime's module can be imported; nothing is imported to find out."""
        return has_module(self.module)


EXACT = "ort-exact"  # the row of what a graph says, whatever this CPU's kernels make of it

RUNTIMES: Table[Runtime] = Table(
    "runtime",
    (
        Runtime(
            name="ort",
            formats=("onnx",),
            module="onnxruntime",
            extra="cpu",
            target="resdeploy.runtimes.ort:OrtRunner",
            integer_layers="resdeploy.runtimes.ort:integer_layers",
        ),
        Runtime(
            name="openvino",
            formats=("onnx",),
            module="openvino",
            extra="openvino",
            target="resdeploy.runtimes.openvino:OpenVinoRunner",
            integer_layers="resdeploy.runtimes.openvino:integer_layers",
        ),
        Runtime(
            name=EXACT,
            formats=("onnx",),
            module="onnxruntime",
            extra="cpu",
            target="resdeploy.runtimes.ort:exact_runner",
            simulates=("tensorrt",),
        ),
        Runtime(
            name="torchscript",
            formats=("torchscript",),
            module="torch",
            extra="",
            target="resdeploy.runtimes.programs:TorchScriptRunner",
        ),
        Runtime(
            name="pt2",
            formats=("pt2",),
            module="torch",
            extra="",
            target="resdeploy.runtimes.programs:Pt2Runner",
        ),
        Runtime(
            name="tensorrt",
            formats=("engine",),
            module="tensorrt",
            extra="gpu",
            target="resdeploy.engines.runner:tensorrt_runner",
            runs_code=True,
        ),
        Runtime(
            name="tensorrt-rtx",
            formats=("engine",),
            module="tensorrt_rtx",
            extra="rtx",
            target="resdeploy.engines.runner:rtx_runner",
            runs_code=True,
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A way of PyTorch's own to run a model. `target` makes a Runner from (module, threads)."""

    name: str
    target: str


BASELINES: Table[Baseline] = Table(
    "baseline",
    (
        Baseline(name="eager", target="resdeploy.runtimes.eager:EagerRunner"),
        Baseline(name="channels-last", target="resdeploy.runtimes.eager:ChannelsLastRunner"),
        Baseline(name="compile", target="resdeploy.runtimes.eager:CompiledRunner"),
        Baseline(name="torchscript", target="resdeploy.runtimes.eager:TracedRunner"),
    ),
)

_PUBLIC = {
    "EagerRunner": "resdeploy.runtimes.eager:EagerRunner",
    "OpenVinoRunner": "resdeploy.runtimes.openvino:OpenVinoRunner",
    "Optimization": "resdeploy.runtimes.ort:Optimization",
    "OrtRunner": "resdeploy.runtimes.ort:OrtRunner",
    "Pt2Runner": "resdeploy.runtimes.programs:Pt2Runner",
    "TorchScriptRunner": "resdeploy.runtimes.programs:TorchScriptRunner",
    "optimized_operators": "resdeploy.runtimes.ort:optimized_operators",
}

__all__ = ["BASELINES", "EXACT", "RUNTIMES", "Baseline", "Runtime", *_PUBLIC]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
