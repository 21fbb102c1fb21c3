"""What else the cores did: nothing is seen of our own work, and another process is."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from resdeploy.measure.load import BUSY_OTHERS, LoadMeter
from resdeploy.records import Load

SPIN = "while True: pass"


def measured(seconds: float, *, work: bool) -> Load:
    with LoadMeter() as meter:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not work:
                time.sleep(0.01)
    return meter.load


def test_another_process_that_keeps_a_core_busy_is_seen() -> None:
    cores = len(psutil.Process().cpu_affinity())
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(cores)]
    try:
        time.sleep(0.5)
        found = measured(1.0, work=False)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert found.others > 0.5
    assert "other processes used" in found.busy[0]
    assert len(found.cores) == cores


def test_our_own_work_does_not_count_as_that_of_others() -> None:
    """Tests run beside each other, so how much others did is compared, not known."""
    shares = []
    for _ in range(5):
        idle, working = measured(0.5, work=False), measured(0.5, work=True)
        shares.append(working.others - idle.others)
    assert min(shares) < 1 / len(psutil.Process().cpu_affinity()) / 2


@pytest.mark.parametrize("found", [measured(0.0, work=False), measured(0.02, work=True)])
def test_shares_are_shares_even_of_a_moment(found: Load) -> None:
    assert 0 <= found.others <= 1
    assert 0 <= found.steal <= 1
    assert bool(found.busy) == (found.others > BUSY_OTHERS or found.steal > 0.03)
