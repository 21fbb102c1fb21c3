"""Ends well and writes what is not ONNX."""

import sys
from pathlib import Path

Path(sys.argv[2]).write_text("this is no graph")
