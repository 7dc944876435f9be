"""Small networks whose symmetry is known by construction."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrl.symmetry.spec.axes import Concat, Product
from wsrl.symmetry.spec.spec import PermutationSpec


class Computed(nn.Module):
    """Modules and parameters, and a function of them and an input."""

    def __init__(self, function: Callable, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def attention_by_hand(features: int, heads: int, size: int, value_size: int) -> Computed:
    """Self-attention from plain operations, with its own residual and layers before and after."""

    def run(self, x):
        x = self.before(x)
        batch, time, _ = x.shape
        queries, keys = (layer(x).view(batch, time, heads, size) for layer in (self.q, self.k))
        values = self.v(x).view(batch, time, heads, value_size)
        scores = torch.einsum("bthd,bshd->bhts", queries, keys).softmax(-1)
        attended = torch.einsum("bhts,bshd->bthd", scores, values).reshape(batch, time, heads * value_size)
        return self.after(x + self.o(attended))

    return Computed(
        run,
        before=nn.Linear(3, features),
        q=nn.Linear(features, heads * size),
        k=nn.Linear(features, heads * size),
        v=nn.Linear(features, heads * value_size),
        o=nn.Linear(heads * value_size, features),
        after=nn.Linear(features, 2),
    )


class BasicBlock(nn.Module):
    """Two convolutions with batch norms and a shortcut, projected where the shape changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norms and a shortcut, as in ResNet-50."""

    def __init__(self, fan_in: int, width: int, fan_out: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fan_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, fan_out, 1, bias=False), nn.BatchNorm2d(fan_out)
        self.shortcut = nn.Sequential()
        if fan_in != fan_out or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks, the mean over positions and a linear layer."""

    def __init__(self, width: int, stages: list[list[nn.Module]], features: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        for number, blocks in enumerate(stages, 1):
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.num_stages = len(stages)
        self.linear = nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.linear(x.mean((2, 3)))


def resnet20(width: int = 4) -> ResNet:
    """Three stages of three basic blocks."""
    stages, fan_in = [], width
    for number in range(3):
        fan_out = width * 2**number
        blocks = [BasicBlock(fan_in if k == 0 else fan_out, fan_out, 2 if k == 0 and number else 1) for k in range(3)]
        stages.append(blocks)
        fan_in = fan_out
    return ResNet(width, stages, fan_in)


def resnet50(width: int = 4) -> ResNet:
    """Four stages of 3, 4, 6 and 3 bottlenecks."""
    stages, fan_in = [], width
    for number, depth in enumerate((3, 4, 6, 3)):
        inner = width * 2**number
        fan_out = 4 * inner
        blocks = [
            Bottleneck(fan_in if k == 0 else fan_out, inner, fan_out, 2 if k == 0 and number else 1)
            for k in range(depth)
        ]
        stages.append(blocks)
        fan_in = fan_out
    return ResNet(width, stages, fan_in)


def vgg16(width: int = 4) -> nn.Module:
    """Thirteen convolutions and three linear layers."""
    layers, fan_in = [], 3
    for step in (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"):
        if step == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(fan_in, width * step, 3, padding=1), nn.ReLU()]
            fan_in = width * step
    head = [nn.Flatten(), nn.Linear(fan_in, 12), nn.ReLU(), nn.Linear(12, 14), nn.ReLU(), nn.Linear(14, 10)]
    return nn.Sequential(*layers, *head)


def inferred_spec(module: nn.Module, *inputs: Tensor, **options) -> PermutationSpec:
    """The inferred spec of a network, once it is proved and every tie of it is seen to matter."""
    spec = PermutationSpec.from_module(module, inputs, **options)
    report = spec.verify(module, inputs)
    assert report.largest_error <= 1e-10
    assert not report.silent
    return spec


def noise(*shape: int) -> Tensor:
    """Normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def composite_spec(a: int, h: int, c: int) -> PermutationSpec:
    """A spec with axes of all forms: of two permutations, products, concatenations, and some within others."""
    return PermutationSpec(
        axes={
            "plain": ("a", None),
            "square": ("a", "a"),
            "flat": (None, Product(("a", 3))),
            "heads": (Concat((Product(("h", "c")), 2, "a")), Concat(("a", 10))),
            "values": ("a", Product(("h", "d")), None),
            "apart": ("h", "c", "d", "c"),
            "scalar": (),
        },
        sizes={"a": a, "h": h, "c": c, "d": 5},
        within={"c": ("h",), "d": ("h",)},
        shapes={
            "plain": (a, 2),
            "square": (a, a),
            "flat": (6, 3 * a),
            "heads": (h * c + 2 + a, a + 10),
            "values": (a, 5 * h, 2),
            "apart": (h, c, 5, c),
            "scalar": (),
        },
    )
