"""Leaving by a signal takes no lock along."""

from __future__ import annotations

import subprocess
import sys

# Another thread sends a signal each time that this one is back at work in the importer.
LEAVING = """
import _imp, importlib._bootstrap, os, signal, threading, time
from resdeploy.cli.signals import Leaving

leaving, at_work = Leaving(), threading.Semaphore(0)
leaving.install()

def send():
    while True:
        at_work.acquire()
        time.sleep(0.0002)
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=send, daemon=True).start()
for _ in range(300):
    try:
        at_work.release()
        while True:
            importlib._bootstrap._lock_unlock_module("os")
            sum(range(20))
    except SystemExit:
        leaving.done()
        assert not _imp.lock_held(), "the importer's lock is held for ever"
os._exit(0)
"""


def test_the_lock_of_the_importer_is_free_afterwards() -> None:
    """Else the next import of another thread would never end, nor the program that waits for it."""
    said = subprocess.run(
        [sys.executable, "-c", LEAVING], capture_output=True, text=True, check=False, timeout=60
    )
    assert (said.returncode, said.stderr) == (0, "")
