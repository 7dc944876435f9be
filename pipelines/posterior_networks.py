"""The networks whose posteriors are matched: perceptrons, a small convolutional network, ResNet-20 and a SIREN.

Letters: B pictures, C channels, H height, W width, P points.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsrl.errors import UserError
from wsrl.fields.network import FieldConfig, Trunk, initial_layers

KINDS = ("mlp", "cnn", "resnet20", "siren")
NORMALISATIONS = ("frn", "group")
FRN_EPSILON = 1e-6
NUM_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One network.

    Attributes:
        kind: ``mlp``, ``cnn``, ``resnet20`` or ``siren``.
        width: Units of a hidden layer; channels of the first convolution of the others.
        depth: Hidden layers of ``mlp`` and ``siren``; the others have theirs.
        normalisation: Of ``resnet20``: ``frn`` or ``group``, which both know no other example of a batch.
        omega: Of ``siren``: factor inside the sine of the first layer.
    """

    kind: str = "mlp"
    width: int = 512
    depth: int = 2
    normalisation: str = "frn"
    omega: float = 10.0

    def __post_init__(self):
        for name, allowed in (("kind", KINDS), ("normalisation", NORMALISATIONS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"network.{name} is {getattr(self, name)!r}", allowed=", ".join(allowed))


class FilterResponseNorm(nn.Module):
    """Every channel over the root of its mean square, scaled and shifted, above a threshold that is learned.

    Source: Singh and Krishnan, CVPR 2020, equations 1 to 3.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised activations ``(B, C, H, W)``."""
        x = x * torch.rsqrt(x.square().mean(dim=(2, 3), keepdim=True) + FRN_EPSILON)
        x = x * self.scale[:, None, None] + self.shift[:, None, None]
        return torch.maximum(x, self.threshold[:, None, None])


def normalised(channels: int, kind: str, activate: bool = True) -> nn.Module:
    """A normalisation with its activation: FRN has one of its own, which takes the place of ReLU."""
    if kind == "frn":
        return FilterResponseNorm(channels)
    return nn.Sequential(nn.GroupNorm(NUM_GROUPS, channels), nn.ReLU() if activate else nn.Identity())


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int, kind: str):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = normalised(after, kind)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.last = normalised(after, kind, activate=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Activations ``(B, C, H, W)``."""
        return functional.relu(self.last(self.second(self.norm(self.first(x)))) + self.shortcut(x))


class ResNet20(nn.Module):
    """Three stages of three blocks, with one, two and four times as many channels.

    Source: He et al., CVPR 2016, section 4.2, with projections as shortcuts.
    """

    def __init__(self, channels: int, num_classes: int, width: int, kind: str):
        super().__init__()
        self.entry = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = normalised(width, kind)
        sizes = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        self.blocks = nn.Sequential(
            *(Block(before, after, 2 if after > before else 1, kind) for before, after in pairwise(sizes))
        )
        self.classes = nn.Linear(sizes[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of pictures ``(B, C, H, W)``."""
        return self.classes(self.blocks(self.norm(self.entry(x))).mean(dim=(2, 3)))


def classifier(config: NetworkConfig, shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """An untrained classifier of pictures ``shape`` (C, H, W); torch's own random state is not touched."""
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.kind == "resnet20":
            return ResNet20(channels, num_classes, config.width, config.normalisation)
        if config.kind == "cnn":
            positions = -(-height // 4) * -(-width // 4)
            return nn.Sequential(
                nn.Conv2d(channels, config.width, 3, 2, 1),
                nn.ReLU(),
                nn.Conv2d(config.width, 2 * config.width, 3, 2, 1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(2 * config.width * positions, num_classes),
            )
        assert config.kind == "mlp", "fields have siren()"
        sizes = [channels * height * width, *[config.width] * config.depth]
        layers = [part for before, after in pairwise(sizes) for part in (nn.Linear(before, after), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(sizes[-1], num_classes))


def siren(config: NetworkConfig, channels: int, seed: int) -> Trunk:
    """An unfitted sine network from points ``(P, 2)`` to values ``(P, channels)``, started as SIREN is."""
    shape = FieldConfig(
        width=config.width, depth=config.depth, encoding="identity", activation="sine", omega=config.omega
    )
    trunk = Trunk(shape, 2, channels)
    layers = zip(*initial_layers(shape, 2, channels, torch.Generator().manual_seed(seed)))
    with torch.no_grad():
        for layer, (weight, bias) in zip(trunk.layers, layers):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return trunk
