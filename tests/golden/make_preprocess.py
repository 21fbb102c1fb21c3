"""Write images/ and preprocess.json: what torchvision's own transforms make of odd images.

Needs torchvision, which resdeploy does not; run it in an environment of its own:

    python -m venv tv && tv/bin/pip install torch==2.14.1 torchvision==0.29.1 pillow==13.0.0
    tv/bin/python tests/golden/make_preprocess.py

Each case is an image, the fields of a `Preprocess`, and the sha256 of the resulting
float32 [C, H, W] bytes, with the first values of each channel for a reader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

HERE = Path(__file__).parent
IMAGES = HERE / "images"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

SETTINGS: list[dict[str, Any]] = [
    {"size": 32, "resize": 40, "crop": 32, "interpolation": "bilinear"},
    {"size": 32, "resize": 36, "crop": 32, "interpolation": "bicubic"},
    {"size": 31, "resize": 48, "crop": 31, "interpolation": "lanczos"},
    {"size": 32, "resize": 20, "crop": 32, "interpolation": "nearest"},
    {"size": 24, "resize": 27, "crop": 24, "interpolation": "box"},
    {"size": 32, "resize": 64, "crop": 32, "interpolation": "hamming"},
    {"size": 32, "crop": 32},
    {"size": 45, "crop": 45},
    {"size": 32, "resize": 35, "crop": 32, "channels": "BGR"},
    {"size": 32, "resize": 35, "crop": 32, "channels": "L", "mean": [0.13], "std": [0.31]},
]
UNTOUCHED = {"size": 32}


def scene(width: int, height: int, seed: int) -> Image.Image:
    """An RGB image of smooth waves with noise: edges to resample, noise to compress."""
    noise = np.random.default_rng(seed).integers(-20, 21, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 3 + k) + np.cos(y / 4 - k) for k in range(3)]
    values = np.stack(waves, axis=-1) * 55 + 128 + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def with_alpha(image: Image.Image, mode: str) -> Image.Image:
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def grey16(width: int, height: int) -> Image.Image:
    values = np.linspace(0, 65535, width * height).reshape(height, width)
    return Image.fromarray(values.astype(np.uint16))


def rotated_by_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


IMAGE_MAKERS: dict[str, Callable[[Path], None]] = {
    "rgb.jpg": lambda path: scene(47, 33, 1).save(path),
    "square.jpg": lambda path: scene(32, 32, 2).save(path, subsampling=0),
    "progressive.jpeg": lambda path: scene(40, 52, 3).save(path, progressive=True),
    "grey.jpg": lambda path: scene(41, 37, 4).convert("L").save(path),
    "cmyk.jpg": lambda path: scene(39, 35, 5).convert("CMYK").save(path),
    "rotated.jpg": lambda path: scene(44, 33, 6).save(path, exif=rotated_by_exif()),
    "rgb.png": lambda path: scene(35, 45, 7).save(path),
    "rgb-transparent-colour.png": lambda path: scene(33, 33, 8).save(
        path, transparency=(128, 128, 128)
    ),
    "rgba.png": lambda path: with_alpha(scene(36, 34, 9), "RGB").save(path),
    "grey.png": lambda path: scene(32, 32, 10).convert("L").save(path),
    "grey-alpha.png": lambda path: with_alpha(scene(37, 41, 11), "L").save(path),
    "grey-transparent-value.png": lambda path: (
        scene(34, 34, 12).convert("L").save(path, transparency=7)
    ),
    "grey16.png": lambda path: grey16(38, 33).save(path),
    "one-bit.png": lambda path: scene(40, 40, 13).convert("1").save(path),
    "palette.png": lambda path: scene(43, 36, 14).quantize(64).save(path),
    "palette-transparent-entry.png": lambda path: (
        scene(36, 43, 15).quantize(64).save(path, transparency=3)
    ),
    "palette-transparency.png": lambda path: (
        scene(36, 36, 16).quantize(64).save(path, transparency=bytes(range(0, 256, 4)))
    ),
    "strip.png": lambda path: scene(17, 1, 17).save(path),
    "rgb.webp": lambda path: scene(45, 38, 18).save(path, quality=70),
    "rgba.webp": lambda path: with_alpha(scene(32, 32, 19), "RGB").save(path, lossless=True),
    "rgb.bmp": lambda path: scene(23, 27, 20).save(path),
    "palette.bmp": lambda path: scene(27, 23, 21).quantize(32).save(path),
}


def torchvision_pipeline(fields: dict[str, Any]) -> transforms.Compose:
    channels = fields.get("channels", "RGB")
    steps: list[Any] = [transforms.Grayscale(1)] if channels == "L" else []
    if "resize" in fields:
        interpolation = transforms.InterpolationMode(fields.get("interpolation", "bilinear"))
        steps.append(transforms.Resize(fields["resize"], interpolation))
    if "crop" in fields:
        steps.append(transforms.CenterCrop(fields["crop"]))
    steps.append(transforms.ToTensor())
    if channels == "BGR":
        steps.append(transforms.Lambda(lambda tensor: tensor.flip(0)))
    return transforms.Compose([*steps, transforms.Normalize(fields["mean"], fields["std"])])


def case(name: str, setting: dict[str, Any]) -> dict[str, Any]:
    fields = {**IMAGENET, **setting}
    result = torchvision_pipeline(fields)(pil_loader(IMAGES / name)).contiguous().numpy()
    assert result.shape[1:] == (fields["size"], fields["size"]), (name, result.shape)
    return {
        "image": name,
        "preprocess": fields,
        "first": [round(float(value), 6) for value in result[:, 0, 0]],
        "sha256": hashlib.sha256(result.tobytes()).hexdigest(),
    }


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    cases = []
    for name, make in IMAGE_MAKERS.items():
        make(IMAGES / name)
        with Image.open(IMAGES / name) as image:
            untouched = [UNTOUCHED] if image.size == (32, 32) else []
        cases += [case(name, setting) for setting in SETTINGS + untouched]
    head = json.dumps({"torchvision": torchvision.__version__, "pillow": PIL.__version__})
    lines = ",\n".join("  " + json.dumps(one) for one in cases)
    text = f'{{\n"made_with": {head},\n"cases": [\n{lines}\n]\n}}\n'
    (HERE / "preprocess.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
