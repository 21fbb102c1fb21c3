"""The suffixes that checkpoints go by, of each format in the order of preference. No torch."""

from __future__ import annotations

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
PADDLE = (".pdparams",)
SUFFIXES = (SAFETENSORS, TORCH, PADDLE)
