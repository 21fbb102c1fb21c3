"""Ends well and writes what is not ONNX."""

from pathlib import Path

from resdeploy.graph.children import job

source, result = job()

Path(result).write_text("this is no graph")
