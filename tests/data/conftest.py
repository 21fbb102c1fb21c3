from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Write an image of noise that no other seed gives, at a path whose folder is made."""

    def write(path: Path, seed: int = 0, size: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def labelled_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Three images of cats, two of dogs, 8x8."""
    folder = tmp_path / "pets"
    for seed, name in enumerate(["cat/1.png", "cat/2.PNG", "cat/3.bmp", "dog/1.jpg", "dog/2.webp"]):
        write_image(folder / name, seed)
    return folder
