"""Which tensors the parts of a module give: each once, whoever hands it on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from resdeploy.models.calls import calls_of
from resdeploy.runtimes.watched import WatchedRunner


class Shared(nn.Module):
    """One activation for all, in place, as torchvision's blocks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.nothing = nn.Identity()
        self.drop = nn.Dropout()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.stem(self.nothing(images)))
        x = self.relu(self.drop(self.bn(self.conv(x))) + x)
        return x.mean((2, 3))


def test_calls_give_each_tensor_once_and_know_the_norm_that_reads_it() -> None:
    calls = calls_of(Shared(), (3, 8, 8))
    assert [call.key for call in calls] == [
        ("stem.0", 0), ("stem.1", 0), ("relu", 0), ("conv", 0), ("bn", 0), ("relu", 1),
    ]  # fmt: skip
    norms = {call.name: call.norm for call in calls}
    assert norms["stem.0"] == ("stem.1", 0)
    assert norms["conv"] == ("bn", 0)
    assert norms["bn"] is None
    assert {call.shape for call in calls} == {(4, 8, 8)}


def test_a_tensor_that_others_read_too_has_no_norm_to_be_folded_into() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.other = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
            self.eval()

        def forward(self, images: Tensor) -> Tensor:
            x: Tensor = self.conv(images)
            return self.bn(x) + self.other(x)

    calls = {call.name: call for call in calls_of(Forked(), (3, 4, 4))}
    assert calls["conv"].norm is None


def test_what_is_watched_is_what_was_given_and_not_what_was_written_into_it_later() -> None:
    torch.manual_seed(0)
    module = Shared()
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    with WatchedRunner(module, {("stem.1", 0), ("relu", 1)}, threads=1) as runner:
        runner.run(images)
        first = runner.seen
        with torch.no_grad():
            expected = module.stem(torch.from_numpy(images)).numpy()
        assert (expected < 0).any()
        assert np.array_equal(first["stem.1", 0], expected)
        assert (first["relu", 1] >= 0).all()
        runner.run(images[:1])
        assert runner.seen["relu", 1].shape == (1, 4, 8, 8)
    assert not runner.seen
