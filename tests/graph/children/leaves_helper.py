"""Ends at once and leaves a helper behind that keeps the output pipe open."""

import os
import subprocess
import sys
from pathlib import Path

helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(sys.argv[2] + ".pids").write_text(f"{helper.pid}")
os._exit(0)
