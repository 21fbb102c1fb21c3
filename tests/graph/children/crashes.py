"""Dies as native code does, with half a result written."""

import os
import signal
import sys
from pathlib import Path

Path(sys.argv[2]).write_bytes(b"half")
os.kill(os.getpid(), signal.SIGSEGV)
