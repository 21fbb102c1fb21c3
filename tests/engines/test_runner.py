"""The Runner of engines against a TensorRT without a GPU: right answers, and clear failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.engines.profile import layer_times_ms
from resdeploy.engines.refit import give_weights
from resdeploy.engines.runner import LoadedEngine
from resdeploy.errors import EngineError
from tests.engines import fake_tensorrt as fake

PROFILES = ((1, 1, 4), (4, 8, 16))


def loaded(
    profiles: tuple[tuple[int, int, int], ...] = PROFILES,
    *,
    graphs: bool = True,
    fails: bool = False,
    **broken: bool,
) -> tuple[LoadedEngine, fake.Engine]:
    device, log = fake.CpuDevice(fails=fails), fake.Log()
    engine = fake.Engine(profiles, device.launch, log, **broken)  # type: ignore[arg-type]
    made: Any = (engine, fake.API, log, device)
    return LoadedEngine(*made, graphs=graphs), engine


def images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, 3, 4, 4), dtype=np.float32)


@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=8), graphs=st.booleans())
@settings(max_examples=30)
def test_every_batch_is_answered_whatever_came_before(batches: list[int], graphs: bool) -> None:
    """Contexts are bound again and again, and graphs keep the buffers that they were made with."""
    runner, _ = loaded(graphs=graphs)
    for seed, batch in enumerate(batches):
        given = images(batch, seed)
        assert np.array_equal(runner.run(given), fake.answers(given))


def test_a_graph_answers_from_the_second_time_on() -> None:
    runner, _ = loaded()
    assert runner.bound(2).replay is None
    runner.run(images(2))
    assert runner.bound(2).replay is not None
    assert runner.notes == ()


def test_an_engine_that_cannot_be_captured_still_answers_and_says_so() -> None:
    runner, _ = loaded(fails=True)
    for seed in range(3):
        assert np.array_equal(runner.run(images(2, seed)), fake.answers(images(2, seed)))
    (note,) = runner.notes
    assert "no CUDA graph at batch 2" in note
    assert "capturing" in note


def test_the_profile_tuned_for_the_nearest_batch_is_taken_and_has_its_own_context() -> None:
    runner, engine = loaded()
    assert [runner.profile_for(batch) for batch in (1, 3, 4, 5, 16)] == [0, 0, 0, 1, 1]
    for batch in (1, 3, 8, 16):
        runner.run(images(batch))
    assert engine.contexts == 2


def test_a_batch_outside_every_profile_is_refused() -> None:
    runner, _ = loaded(((2, 2, 4), (8, 8, 8)))
    with pytest.raises(EngineError, match=r"batch of 1 is outside every profile.*2 to 4, 8 to 8"):
        runner.run(images(1))
    with pytest.raises(EngineError, match="batch of 5 is outside"):
        runner.run(images(5))
    with pytest.raises(EngineError, match="batch of 1 is outside"):
        runner.run(images(9))  # 8, and one that is left


def test_a_batch_too_large_is_refused_where_it_may_not_be_split() -> None:
    runner, _ = loaded()
    assert len(runner.run(images(40))) == 40
    runner.splits = False
    with pytest.raises(EngineError, match=r"batch of 40 is outside every profile.*1 to 4, 4 to 16"):
        runner.run(images(40))
    assert len(runner.run(images(16))) == 16


def test_layers_are_timed_without_a_graph_and_without_the_first_rounds() -> None:
    runner, engine = loaded()
    engine.layers = ("conv1", "fc")
    runner.run(images(2))
    assert runner.bound(2).replay is not None
    assert layer_times_ms(runner, 2) == {"conv1": 1.0, "fc": 2.0}  # the first ones take longer
    assert np.array_equal(runner.run(images(2)), fake.answers(images(2)))


@pytest.mark.parametrize("fails", ["refit_from_file", "refit_cuda_engine", None])
def test_weights_come_back_or_it_is_told_why_not(fails: str | None, tmp_path: Path) -> None:
    """An engine without its weights is never run as if it had some."""
    _, engine = loaded()
    refitter = fake.refitting(fails, engine.log)
    where = tmp_path / "weights.onnx"
    made: Any = (refitter, engine, where, None, engine.log)
    if fails is None:
        give_weights(*made)
        assert refitter.done == [str(where), engine]
        return
    with pytest.raises(EngineError, match=f"could not be put into the engine: {fails} refused"):
        give_weights(*made)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"broken": True}, "could not be run: Cask convolution execution failed"),
        ({"full": True}, "no execution context could be made: OutOfMemory"),
    ],
)
def test_what_tensorrt_returns_none_or_false_for_is_an_error_with_its_log(
    broken: dict[str, bool], said: str
) -> None:
    runner, _ = loaded(**broken)
    with pytest.raises(EngineError, match=said):
        runner.run(images(1))


def test_images_of_another_size_or_type_are_refused() -> None:
    runner, _ = loaded()
    with pytest.raises(EngineError, match=r"float64.*float32|float32.*float64"):
        runner.run(images(1).astype(np.float64))
    with pytest.raises(EngineError, match="takes images"):
        runner.run(np.zeros((1, 3, 5, 5), np.float32))
