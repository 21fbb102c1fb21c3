"""TensorRT-RTX takes the graphs: it parses, type-checks and compiles them without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.graph import tools
from tests.graph.test_blocks import KINDS

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError)


class Heard(trt.ILogger):  # type: ignore[misc]
    """Keeps what the compiler warns of."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.WARNING:
            self.warnings.append(message)


def compiled(path: Path, logger: Heard) -> bytes | None:
    """The engine of a graph, strongly typed, for batches of 1 to 4; None where it fails."""
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        logger.warnings += [str(parser.get_error(index)) for index in range(parser.num_errors)]
        return None
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    image = network.get_input(0)
    shape = tuple(image.shape)[1:]
    profile.set_shape(image.name, (1, *shape), (2, *shape), (4, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_every_block_compiles(name: str, tmp_path: Path) -> None:
    source = tools.simplified(tmp_path, name, 64)
    path = tools.quantized(source, tools.noise(1, 3, 64, 64), target="tensorrt", bits=8)
    heard = Heard()
    engine = compiled(path, heard)
    assert engine is not None, heard.warnings
    assert len(engine) < source.stat().st_size * 0.6  # its weights are integers
    assert not [message for message in heard.warnings if "INT8" in message.upper()]
