"""Starts a helper, writes both process ids beside the result, and never ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

from resdeploy.graph.children import job

source, result = job()

helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(result + ".pids").write_text(f"{os.getpid()} {helper.pid}")
time.sleep(600)
