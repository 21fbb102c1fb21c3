"""TensorRT-RTX takes the graphs: it parses, type-checks and compiles them without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.graph import tools
from tests.graph.test_blocks import KINDS

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError)


# An engine holds kernels, too: 3 MB where there are few weights. Those of floats need four times
# as much as integers, which with the classifier's makes 0.45 of the float file at most.
ENGINE_BYTES = 4_000_000


class Heard(trt.ILogger):  # type: ignore[misc]
    """Keeps what the compiler warns of."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.WARNING:
            self.warnings.append(message)


# The library keeps the first logger that it is given, and tells no other.
LOGGER = Heard()


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
    LOGGER.warnings.clear()
    engine = compiled(path, LOGGER)
    assert engine is not None, LOGGER.warnings
    assert len(engine) < ENGINE_BYTES + 0.45 * source.stat().st_size
    assert LOGGER.warnings == []


def test_what_the_parser_misreads_is_heard(tmp_path: Path) -> None:
    """The graph for another target: UINT8 is a warning, and only a zero point an error."""
    source = tools.passed(tmp_path, "resnet20", 32)
    path = tools.quantized(source, tools.noise(1, 3, 32, 32), target="ort-cpu", bits=8)
    LOGGER.warnings.clear()
    assert compiled(path, LOGGER) is None
    said = " ".join(LOGGER.warnings)
    assert "Defaulting to INT8" in said
    assert "Non-zero zero point" in said
