"""Closed sets of words that recipes, records and command lines share. Imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum


class Interpolation(StrEnum):
    """PIL's resampling filters, by the names torchvision gives them."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class ChannelOrder(StrEnum):
    """The order in which a model takes the colours; L is one grey channel."""

    RGB = "RGB"
    BGR = "BGR"
    L = "L"


class CountedAs(StrEnum):
    """What an inconclusive verdict counts as where the user says so."""

    PASS = "pass"
    FAIL = "fail"


class OnBroken(StrEnum):
    """What a broken image does: stop the run, or be counted and listed."""

    STOP = "stop"
    SKIP = "skip"


class WeightBitsChoice(StrEnum):
    """`auto` asks the CPU; 7 and 8 are for a machine other than this one."""

    AUTO = "auto"
    SEVEN = "7"
    EIGHT = "8"


class NormChoice(StrEnum):
    """The norm that a model is built with instead of its own."""

    BATCH = "batch"  # batch normalization, arXiv:1502.03167
    GROUP = "group"  # group normalization in 32 groups, arXiv:1803.08494
    FROZEN = "frozen"  # batch normalization whose statistics and parameters never change


class Head(StrEnum):
    """What a file gives for an image."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"  # the softmax of the logits
    FEATURES = "features"  # what the last linear layer takes


class FloatType(StrEnum):
    """The type of a float16 graph's inputs and outputs."""

    FP32 = "fp32"
    FP16 = "fp16"


class HardwareCompatibility(StrEnum):
    """Other GPUs than the one an engine was compiled on that may run it."""

    NONE = "none"
    AMPERE_PLUS = "ampere-plus"  # Ampere and later, with less shared memory and so slower kernels
    SAME = "same-capability"  # those of the same compute capability
