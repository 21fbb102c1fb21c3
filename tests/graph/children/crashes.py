"""Dies as native code does, with half a result written."""

import os
import signal
from pathlib import Path

from resdeploy.graph.children import job

source, result = job()

Path(result).write_bytes(b"half")
os.kill(os.getpid(), signal.SIGSEGV)
