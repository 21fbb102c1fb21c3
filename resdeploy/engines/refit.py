"""An engine without its weights and the ONNX file that they are in: the engine with them.

Source: TensorRT 10.12, "Refitting an Engine" and "Weight-Stripped Engine Generation".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdeploy.engines.api import Api
from resdeploy.engines.log import Heard
from resdeploy.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt


def give_weights(api: Api, engine: trt.ICudaEngine, graph: Path, logger: Any, heard: Heard) -> None:
    """Put the weights of an ONNX file into a loaded engine that was compiled from it.

    Raises:
        EngineError: TensorRT refuses them, or some are missing.
    """
    refitter = api.Refitter(engine, logger)
    parser = api.OnnxParserRefitter(refitter, logger)
    if not (parser.refit_from_file(str(graph)) and refitter.refit_cuda_engine()):
        said = "; ".join(heard.errors()) or "TensorRT gave no reason"
        raise EngineError(f"the weights of {graph} could not be put into the engine: {said}")
