"""A module that takes preprocessed images in, one that takes their pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder


class FromPixels(nn.Module):
    """`module` behind the arithmetic of its preprocessing, step by step as on images from files.

    Takes uint8 [N, H, W, C]: RGB, whatever order `module` takes, or one grey channel. Images
    are resized and cropped already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.module = module
        self.turned = preprocess.channels is ChannelOrder.BGR
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name), dtype=torch.float32)
            self.register_buffer(name, values.reshape(-1, 1, 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """What `module` says of the images."""
        # In this order: TensorRT transposes no uint8.
        images = pixels.to(torch.float32).permute(0, 3, 1, 2)
        if self.turned:
            images = images[:, [2, 1, 0]]
        answers: Tensor = self.module((images / 255 - self.mean) / self.std)
        return answers
