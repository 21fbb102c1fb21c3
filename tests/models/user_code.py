"""A module with models of a user's own, good and bad."""

from __future__ import annotations

import sys

from resdeploy.models.reference import LoadedModel, resolve

NET = """
import sys
import torch
from torch import nn
print("user code speaks")

class Net(nn.Module):
    def __init__(self, num_classes=10, size=32):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.linear = nn.Linear(8 * (size // 2) ** 2, num_classes)
    def forward(self, x):
        print("its forward speaks", tuple(x.shape))
        return self.linear(self.model(x).relu().flatten(1))

def build(num_classes=10):
    net = Net(num_classes)
    net.preprocess = {"size": 32, "resize": 36, "crop": 32, "interpolation": "bicubic"}
    return net

def anything(**options):
    return build(**options)

def silent_about_images():
    return Net(size=224)

def for_small_images():
    return Net()

def trained():
    net, generator = build(), torch.Generator().manual_seed(7)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.02, generator=generator)
    return net

def timm_like():
    net = Net()
    net.pretrained_cfg = {"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bilinear"}
    return net

def recorded():
    from resdeploy.records import Preprocess
    net = Net()
    net.preprocess = Preprocess(size=32)
    return net

def badly_recorded():
    net = Net()
    net.preprocess = {"size": 32, "sise": 3}
    return net

def deaf(num_classes=3):
    net = Net()
    net.preprocess = {"size": 32}
    return net

def raises():
    raise ValueError("no luck")

def leaves():
    sys.exit(0)

def needs(path):
    return Net()

def state():
    return Net().state_dict()

def half():
    return Net().half()

def nowhere():
    with torch.device("meta"):
        return Net()

def features():
    return nn.Conv2d(3, 8, 3)

def pair():
    class Pair(Net):
        def forward(self, x):
            return x, x
    return Pair()

def squeezes():
    class Squeezes(Net):
        def forward(self, x):
            return super().forward(x).squeeze()
    return Squeezes(size=224)

def never_alone():
    class NeverAlone(Net):
        def forward(self, x):
            assert len(x) > 1, "no image comes alone"
            return super().forward(x)
    return NeverAlone(size=224)

def packed():
    class Packed(Net):  # as torch.ao.quantization packs integers
        def get_extra_state(self):
            return 8, "packed"
    return Packed()

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.stem = nn.Conv2d(8, 10, 1), nn.Conv2d(3, 8, 3)
        self.preprocess = {"size": 32}
    def forward(self, x):
        return self.head(self.stem(x)).mean((2, 3))

def of_four_channels():
    return nn.Sequential(nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), True), self.bias)

def standardised():
    net = build()
    net.model[0] = Standardised(3, 8, 3, stride=2, padding=1)
    return net

def weight_normed():
    net = build()
    torch.nn.utils.parametrizations.weight_norm(net.model[0])
    return net

class Late(Net):
    def forward(self, x):
        import late
        return super().forward(x) * late.SCALE

def imports_late():
    net = Late()
    net.preprocess = {"size": 32}
    return net

made = Net()
"""


def forget() -> None:
    """What a new process would not have: the modules of the project."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("theirs", "late")]:
        del sys.modules[name]


def theirs(name: str, weights: str | None = None, **more: int) -> LoadedModel:
    return resolve(f"theirs.mymodel:{name}", weights, **more)
