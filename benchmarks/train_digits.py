"""Handwritten digits enter; a trained resnet20, two sets of labelled images and a README leave.

    python benchmarks/train_digits.py [--out resdeploy/assets/digits]

Enters: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and
C. Kaynak, 1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0),
1,797 grey images of 8×8 pixels, as scikit-learn brings them along (`load_digits`). Nothing is
downloaded. Only this script needs scikit-learn.

Leaves: resnet20.safetensors, calibration.npz (20 images of each class), evaluation.npz (40 of
each class) and README.md, whose figures come from the run that wrote it.

Method: images are enlarged to 32×32, copies are dropped, and the rest is split by class with
a seed; what is neither calibration nor evaluation trains. Training sees the images through
the preprocessing that the product uses for these weights, turned, sheared, scaled and shifted
a little at random. SGD with a one-cycle rate runs for a fixed number of epochs, so nothing is
chosen by looking at the evaluation images; the constants below were chosen on a part of the
training images. Equal seeds give equal bytes on the same machine with the same versions;
elsewhere the last bits of the weights differ.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from resdeploy.artifact import replacing, sha256_of_file, write_text
from resdeploy.data import NpzSource, preprocessed
from resdeploy.models.family.resnet import build
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.reference import EMBEDDED, resolve
from resdeploy.records import Preprocess

ROW = EMBEDDED["digits"]
WEIGHTS, CALIBRATION, EVALUATION = "resnet20.safetensors", "calibration.npz", "evaluation.npz"
SEED = 0
# On a machine that also does something else, two threads took several times as long as one.
THREADS = 1
CLASSES = tuple("0123456789")
CALIBRATION_PER_CLASS = 20
EVALUATION_PER_CLASS = 40

EPOCHS = 18
BATCH = 32
PEAK_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05

MAX_TURN = math.radians(10)
MAX_SHEAR = 0.15
MAX_SCALE = 0.12
MAX_SHIFT = 0.15  # of half the edge: 2.4 of 32 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Images with their classes: pixels uint8 [N, 32, 32], labels int64 [N]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.intp]) -> Labelled:
        """The images at these indices, in this order."""
        return Labelled(pixels=self.pixels[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Three sets that share no image."""

    training: Labelled
    calibration: Labelled
    evaluation: Labelled


# --- images -----------------------------------------------------------------------------


def digits() -> Labelled:
    """The digits at 32×32, each image once."""
    grey, labels = load_digits(return_X_y=True)
    pixels = np.stack([enlarged(image) for image in grey.reshape(-1, 8, 8)])
    contents = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
    first_of_each = np.sort(np.unique(np.array(contents), return_index=True)[1])
    return Labelled(pixels=pixels, labels=labels.astype(np.int64)).take(first_of_each)


def enlarged(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Grey uint8 [32, 32] from grey [8, 8] in 0..16."""
    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))


def split(images: Labelled, generator: np.random.Generator) -> Split:
    """Equally many of each class to calibration and to evaluation, the rest to training."""
    ends = (CALIBRATION_PER_CLASS, CALIBRATION_PER_CLASS + EVALUATION_PER_CLASS)
    by_class = [
        np.split(generator.permutation(np.flatnonzero(images.labels == label)), ends)
        for label in range(len(CLASSES))
    ]
    calibration, evaluation, training = (
        images.take(generator.permutation(np.concatenate(parts)))
        for parts in zip(*by_class, strict=True)
    )
    return Split(training=training, calibration=calibration, evaluation=evaluation)


def as_inputs(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """The model's inputs, float32 [N, 3, 32, 32], from grey images uint8 [N, 32, 32]."""
    return torch.from_numpy(
        np.stack([preprocessed(Image.fromarray(image), preprocess) for image in pixels])
    )


# --- training ---------------------------------------------------------------------------


def trained(inputs: Tensor, labels: Tensor, black: Tensor, *, seed: int) -> nn.Module:
    """A resnet20 in eval mode; `black` [3, 1, 1] is what a black pixel is among the inputs."""
    generator = torch.Generator().manual_seed(seed)
    model = build(VARIANTS[ROW.variant].config, seed=seed).train()
    steps_per_epoch = len(inputs) // BATCH
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, epochs=EPOCHS, steps_per_epoch=steps_per_epoch, cycle_momentum=False
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs), generator=generator)
        for chosen in order[: steps_per_epoch * BATCH].split(BATCH):
            logits = model(warped(inputs[chosen], black, generator))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def warped(inputs: Tensor, black: Tensor, generator: torch.Generator) -> Tensor:
    """The images turned, sheared, scaled and shifted, each by its own draw, on black."""
    grid = functional.affine_grid(
        random_affine(len(inputs), generator), list(inputs.shape), align_corners=False
    )
    # Outside of an image grid_sample sees 0, so black has to be 0 while it works.
    return functional.grid_sample(inputs - black, grid, align_corners=False) + black


def random_affine(count: int, generator: torch.Generator) -> Tensor:
    """Affine maps [N, 2, 3] near the identity, in coordinates from -1 to 1."""
    turn, shear, scale, right, down = torch.rand(5, count, generator=generator) * 2 - 1
    factor = 1 + MAX_SCALE * scale
    cos, sin = torch.cos(MAX_TURN * turn) * factor, torch.sin(MAX_TURN * turn) * factor
    skew = MAX_SHEAR * shear
    rows = (cos, skew * cos - sin, MAX_SHIFT * right, sin, skew * sin + cos, MAX_SHIFT * down)
    return torch.stack(rows, dim=1).view(count, 2, 3)


# --- files ------------------------------------------------------------------------------


def write_weights(model: nn.Module, path: Path) -> None:
    """The state dict under the model's own keys, with a line on its origin."""
    origin = (
        "resnet20 trained by resdeploy's benchmarks/train_digits.py on scikit-learn's digits "
        "(UCI Optical Recognition of Handwritten Digits, CC BY 4.0)"
    )
    # One entry only: safetensors writes several in an order that changes from run to run.
    content = safetensors.torch.save(model.state_dict(), metadata={"origin": origin})
    with replacing(path) as part:
        part.write_bytes(content)  # save_file would make a file that only its owner can read


def write_images(images: Labelled, path: Path) -> None:
    """An archive as `resdeploy.data.npz` reads it; numpy dates every member 1980-01-01."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file, images=images.pixels, labels=images.labels.astype(np.uint8), classes=CLASSES
        )


def top1(weights: Path, archive: Path) -> tuple[int, int]:
    """How many images the written model gets right, and of how many, by the product's code."""
    model = resolve(ROW.variant, weights)
    correct = total = 0
    for batch in NpzSource(archive).batches(ROW.preprocess, 100):
        answers = model.module(torch.from_numpy(batch.images)).argmax(1).numpy()
        correct += int((answers == batch.labels).sum())
        total += len(batch.ids)
    return correct, total


README = """# Digits: a small trained model and its images

| file | what | sha256 |
|---|---|---|
{files}

- Origin of the images: the test part of *Optical Recognition of Handwritten Digits* by
  E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
  <https://doi.org/10.24432/C50P49>, as `sklearn.datasets.load_digits` gives it.
- Licence of the images: [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/).
  Changed here: grey values 0..16 scaled to 0..255, 8×8 enlarged to 32×32 pixels (bilinear),
  and split. The weights were trained by us and are under this package's licence.
- Split, by class and seed {seed}: {training} images trained the model, {calibration} are for
  calibration, {evaluation} for evaluation. No image is in two of them. All three come from
  the same 13 writers, so these figures say nothing about the handwriting of others.
- Accuracy in FP32: {correct} of the {evaluation} evaluation images, top-1 {top1:.2%}.
- Made by `python benchmarks/train_digits.py` (torch {torch}, scikit-learn's digits, CPU,
  {threads} thread). The same machine and versions give the same bytes; elsewhere the last
  bits of the weights differ.
"""


def readme(folder: Path, parts: Split, correct: int) -> str:
    """The facts about the files in `folder`."""
    calibration, evaluation = len(parts.calibration.labels), len(parts.evaluation.labels)
    what = {
        WEIGHTS: "weights of resnet20 with 10 classes, float32",
        CALIBRATION: f"{calibration} labelled images, {CALIBRATION_PER_CLASS} of each digit",
        EVALUATION: f"{evaluation} labelled images, {EVALUATION_PER_CLASS} of each digit",
    }
    rows = [f"| {name} | {text} | {sha256_of_file(folder / name)} |" for name, text in what.items()]
    return README.format(
        files="\n".join(rows),
        seed=SEED,
        training=len(parts.training.labels),
        calibration=calibration,
        evaluation=evaluation,
        correct=correct,
        top1=correct / evaluation,
        torch=torch.__version__.partition("+")[0],
        threads=THREADS,
    )


def main() -> None:
    """Train, write, and measure what was written."""
    parser = argparse.ArgumentParser(description="Train the model that the package ships.")
    parser.add_argument("--out", type=Path, default=Path("resdeploy/assets/digits"))
    folder: Path = parser.parse_args().out
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)

    parts = split(digits(), np.random.default_rng(SEED))
    inputs = as_inputs(parts.training.pixels, ROW.preprocess)
    black = as_inputs(np.zeros((1, 32, 32), np.uint8), ROW.preprocess)[0, :, :1, :1]
    start = time.perf_counter()
    model = trained(inputs, torch.from_numpy(parts.training.labels), black, seed=SEED)
    print(f"trained on {len(inputs)} images in {time.perf_counter() - start:.0f} s")

    write_weights(model, folder / WEIGHTS)
    write_images(parts.calibration, folder / CALIBRATION)
    write_images(parts.evaluation, folder / EVALUATION)
    correct, total = top1(folder / WEIGHTS, folder / EVALUATION)
    print(f"evaluation: {correct} of {total} right, top-1 {correct / total:.2%}")
    write_text(folder / "README.md", readme(folder, parts, correct))
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    print(f"{folder}: {sum(sizes.values())} bytes, {sizes}")


if __name__ == "__main__":
    main()
