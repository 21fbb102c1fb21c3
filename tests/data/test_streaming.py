"""Guards that need a process of their own: peak memory, and what importing brings in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

EDGE = 128
ALLOWED_GROWTH_MB = 6.0  # names and hashes; one image as float32 is 0.2 MB

READ_ALL = f"""
import re, sys
from pathlib import Path
from resdeploy.data import source_from_reference
from resdeploy.records import Preprocess
source = source_from_reference(sys.argv[1])
count = sum(len(batch.ids) for batch in source.batches(Preprocess(size={EDGE}), 16))
assert count == source.facts().samples
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024)
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc"
)


def output_of(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def peak_mb(reference: Path) -> float:
    """Peak resident memory of reading everything.

    Not ru_maxrss, which a child inherits from the process that starts it: a test runner of
    200 MB would hide whatever is looked for here.
    """
    return float(output_of(READ_ALL, str(reference)))


@needs_proc
def test_memory_does_not_grow_with_an_archive(tmp_path: Path) -> None:
    for count in (80, 800):
        images = np.zeros((count, EDGE, EDGE, 3), dtype=np.uint8)
        images[:] = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
        np.savez(tmp_path / f"{count}.npz", images=images)
    growth = peak_mb(tmp_path / "800.npz") - peak_mb(tmp_path / "80.npz")
    assert growth < ALLOWED_GROWTH_MB


@needs_proc
def test_memory_does_not_grow_with_a_folder(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    image = write_image(tmp_path / "image.png", size=EDGE)
    for count in (40, 400):
        folder = tmp_path / str(count)
        folder.mkdir()
        for position in range(count):
            shutil.copy(image, folder / f"{position}.png")
    growth = peak_mb(tmp_path / "400") - peak_mb(tmp_path / "40")
    assert growth < ALLOWED_GROWTH_MB


def test_torch_stays_out() -> None:
    heavy = output_of(
        "import sys, resdeploy.data as data\n"
        "[getattr(data, name) for name in data.__all__]\n"
        "print(sorted({'torch', 'torchvision', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"
