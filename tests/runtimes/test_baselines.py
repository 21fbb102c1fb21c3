"""PyTorch's own ways to run a model: the same answers, and nothing of them is left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resdeploy.measure.verify import noise
from resdeploy.models.reference import resolve
from resdeploy.runtimes import BASELINES, Baseline, EagerRunner
from resdeploy.table import load_target

ROWS = [
    pytest.param(row, id=row.name, marks=pytest.mark.slow if row.name == "compile" else ())
    for row in BASELINES
]


@pytest.mark.parametrize("row", ROWS)
def test_every_way_answers_like_eager_at_every_batch(row: Baseline) -> None:
    loaded = resolve("resnet20", "embedded:digits")
    channels, size = loaded.facts.in_channels, loaded.preprocess.size
    state = {name: value.clone() for name, value in loaded.module.state_dict().items()}
    threads = torch.get_num_threads()
    factory = load_target(row.target, extra="", why="a test")
    with factory(loaded.module, threads=1) as runner, EagerRunner(loaded.module, threads=1) as same:
        assert torch.get_num_threads() == 1
        for batch in (1, 3):
            images = noise((batch, channels, size, size), seed=batch)
            assert np.allclose(runner.run(images), same.run(images), rtol=1e-3, atol=1e-3)
    assert torch.get_num_threads() == threads
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.stride() == state[name].stride()


def test_the_first_one_is_what_everything_is_held_against() -> None:
    assert BASELINES.names[0] == "eager"
