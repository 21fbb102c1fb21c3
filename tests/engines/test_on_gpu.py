"""Buffers, streams, graphs and events of a real GPU, under a TensorRT that computes by PyTorch.

What TensorRT itself does there is for `doctor --selftest`; this needs no TensorRT.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from resdeploy.engines.device import CudaDevice
from resdeploy.engines.gpu import cuda_here, gpu_here, gpu_state
from resdeploy.engines.runner import LoadedEngine
from resdeploy.engines.timing import timed_queries
from resdeploy.engines.trtexec import PROTOCOLS, Protocol, summary_of
from tests.engines import fake_tensorrt as fake
from tests.engines.test_runner import PROFILES, images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Region:
    """Floats of the GPU that lie at an address."""

    def __init__(self, address: int, shape: fake.Shape) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (address, False),
            "version": 3,
        }


@functools.cache  # asking what an address is would end a capture
def at(address: int, shape: fake.Shape) -> torch.Tensor:
    return torch.as_tensor(Region(address, shape), device="cuda")


def launch(shape: fake.Shape, addresses: dict[str, int], stream: int, *, rounds: int = 0) -> None:
    """`fake.answers` on the GPU, after `rounds` products of matrices that take some 0.1 ms each."""
    given = at(addresses[fake.INPUT], shape).flatten(1)
    answers = at(addresses[fake.OUTPUT], (shape[0], fake.CLASSES))
    with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
        for _ in range(rounds):
            torch.mm(busy(), busy(), out=spare())
        answers.copy_(torch.stack([given.sum(1), given.amax(1), given[:, 0]], dim=1))


@functools.cache
def busy() -> torch.Tensor:
    return torch.ones(2048, 2048, device="cuda")


@functools.cache
def spare() -> torch.Tensor:
    return torch.empty(2048, 2048, device="cuda")


def loaded(*, graphs: bool = True, rounds: int = 0) -> LoadedEngine:
    log = fake.Log()
    engine = fake.Engine(PROFILES, functools.partial(launch, rounds=rounds), log)
    made: Any = (engine, fake.API, log, CudaDevice())
    return LoadedEngine(*made, graphs=graphs)


@pytest.mark.parametrize("graphs", [True, False])
def test_every_batch_is_answered_by_whatever_is_in_its_buffers(graphs: bool) -> None:
    at.cache_clear()
    runner = loaded(graphs=graphs)
    for seed, batch in enumerate((1, 4, 16, 1, 40, 5, 4, 16, 16)):
        given = images(batch, seed)
        found = runner.run(given)
        assert np.allclose(found, fake.answers(given), rtol=1e-4, atol=1e-4)
    assert runner.notes == ()
    assert (runner.bound(16).replay is not None) == graphs


def test_what_cannot_be_captured_is_answered_without_a_graph_and_told() -> None:
    at.cache_clear()
    runner = loaded()
    engine: Any = runner.engine

    def waiting(shape: fake.Shape, addresses: dict[str, int], stream: int) -> None:
        launch(shape, addresses, stream)
        torch.cuda.ExternalStream(stream).synchronize()  # forbidden while a graph is captured

    engine.launch = waiting
    for seed in range(3):
        given = images(2, seed)
        assert np.allclose(runner.run(given), fake.answers(given), rtol=1e-4, atol=1e-4)
    (note,) = runner.notes
    assert "no CUDA graph at batch 2" in note


@pytest.mark.parametrize("protocol", [pytest.param(row, id=row.name) for row in PROTOCOLS])
def test_events_see_all_of_the_work_and_nothing_else(protocol: Protocol) -> None:
    """Ten times the work takes about ten times as long, by either protocol."""
    at.cache_clear()
    few, many = (
        summary_of(
            [row.compute_ms for row in timed_queries(loaded(rounds=rounds), 4, protocol)]
        ).median
        for rounds in (10, 100)
    )
    assert few > 0
    assert 5 < many / few < 12


def test_the_gpu_and_how_it_is_doing_are_known() -> None:
    gpu, state = gpu_here(), gpu_state()
    assert gpu is not None
    assert gpu.name == torch.cuda.get_device_name(0)
    assert gpu.memory_gib > 0
    assert cuda_here() == torch.version.cuda
    if state is not None:  # nvidia-ml-py is installed
        assert gpu.driver
        assert state.sm_mhz > 0
        assert 0 < state.temperature_c < 120
