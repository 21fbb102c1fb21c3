"""From a trained ResNet to verified, quantized, timed and gated artifacts.

The functions have the names of the commands: `from resdeploy import export, quantize, run`.
They are imported when they are asked for: `import resdeploy` alone is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resdeploy.table import lazy

if TYPE_CHECKING:
    from resdeploy.pipeline.engine import trt
    from resdeploy.pipeline.evaluate import bench, check
    from resdeploy.pipeline.layers import layers
    from resdeploy.pipeline.look import inspect, predict
    from resdeploy.pipeline.produce import cast, export, simplify
    from resdeploy.pipeline.quantize import quantize
    from resdeploy.pipeline.run import run
    from resdeploy.pipeline.show import show

_PUBLIC = {
    "bench": "resdeploy.pipeline.evaluate:bench",
    "cast": "resdeploy.pipeline.produce:cast",
    "check": "resdeploy.pipeline.evaluate:check",
    "export": "resdeploy.pipeline.produce:export",
    "inspect": "resdeploy.pipeline.look:inspect",
    "layers": "resdeploy.pipeline.layers:layers",
    "predict": "resdeploy.pipeline.look:predict",
    "quantize": "resdeploy.pipeline.quantize:quantize",
    "run": "resdeploy.pipeline.run:run",
    "show": "resdeploy.pipeline.show:show",
    "simplify": "resdeploy.pipeline.produce:simplify",
    "trt": "resdeploy.pipeline.engine:trt",
}

__all__ = [
    "bench",
    "cast",
    "check",
    "export",
    "inspect",
    "layers",
    "predict",
    "quantize",
    "run",
    "show",
    "simplify",
    "trt",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
