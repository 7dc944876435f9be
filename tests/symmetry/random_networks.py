"""Random networks put together from blocks, with the number of permutations that each block must bring.

All blocks map ``(B, C, T)`` to ``(B, C', T)``. Channels are multiples of four, and groups and heads two, so that groups
of one layer never cut across those of another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from symmetry_networks import Computed
from torch import nn


@dataclass
class Block:
    """A module, the channels that it gives, and how many permutations it must bring."""

    module: nn.Module
    channels: int
    brings: int


def conv(c: int, n: int) -> Block:
    return Block(nn.Conv1d(c, n, 3, padding=1), n, 1)


def pointwise_conv(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.Conv1d(c, n, 1), nn.GELU()), n, 1)


def linear(c: int, n: int) -> Block:
    return Block(Computed(lambda self, x: self.m(x.mT).sin().mT, m=nn.Linear(c, n)), n, 1)


def depthwise(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.Conv1d(c, c, 3, padding=1, groups=c), nn.Conv1d(c, n, 1)), n, 1)


def grouped(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.Conv1d(c, n, 3, padding=1, groups=2), nn.ReLU()), n, 1)


def transposed(c: int, n: int) -> Block:
    return Block(nn.ConvTranspose1d(c, n, 3, padding=1), n, 1)


def batch_norm(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.BatchNorm1d(c), nn.ReLU()), c, 0)


def group_norm(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.GroupNorm(2, c), nn.Tanh()), c, 0)


def layer_norm(c: int, n: int) -> Block:
    return Block(Computed(lambda self, x: self.m(x.mT).mT, m=nn.LayerNorm(c)), c, 0)


def instance_norm(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.InstanceNorm1d(c, affine=True), nn.PReLU(c)), c, 0)


def residual(c: int, n: int) -> Block:
    inner = nn.Sequential(nn.Conv1d(c, n, 3, padding=1), nn.BatchNorm1d(n), nn.ReLU(), nn.Conv1d(n, c, 1))
    return Block(Computed(lambda self, x: x + self.m(x), m=inner), c, 1)


def projected(c: int, n: int) -> Block:
    inner = nn.Sequential(nn.Conv1d(c, c, 3, padding=1), nn.Tanh(), nn.Conv1d(c, n, 1))
    return Block(Computed(lambda self, x: self.p(x) + self.m(x), m=inner, p=nn.Conv1d(c, n, 1)), n, 2)


def gated(c: int, n: int) -> Block:
    squeeze = nn.Sequential(nn.Linear(c, n), nn.ReLU(), nn.Linear(n, c), nn.Sigmoid())
    return Block(Computed(lambda self, x: x * self.m(x.mean(2)).unsqueeze(-1), m=squeeze), c, 1)


def glu(c: int, n: int) -> Block:
    return Block(nn.Sequential(nn.Conv1d(c, 2 * n, 1), nn.GLU(1)), n, 1)


def dense(c: int, n: int) -> Block:
    return Block(Computed(lambda self, x: torch.cat([x, self.m(x)], 1), m=nn.Conv1d(c, n, 1)), c + n, 1)


def recurrent(kind: type[nn.Module], num_layers: int, bidirectional: bool) -> Callable[[int, int], Block]:
    def build(c: int, n: int) -> Block:
        directions = 2 if bidirectional else 1
        rnn = kind(c, n // directions, num_layers, bidirectional=bidirectional, batch_first=True)
        return Block(Computed(lambda self, x: self.m(x.mT)[0].mT, m=rnn), n, num_layers * directions)

    return build


def transformer(norm_first: bool) -> Callable[[int, int], Block]:
    def build(c: int, n: int) -> Block:
        layer = nn.TransformerEncoderLayer(c, 2, n, batch_first=True, norm_first=norm_first)
        return Block(Computed(lambda self, x: self.m(x.mT).mT, m=layer), c, 4)

    return build


def attention(c: int, n: int) -> Block:
    def run(self, x):
        q, k, v = self.qkv(x.mT).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        return x + self.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mT

    return Block(Computed(run, qkv=nn.Linear(c, 18), o=nn.Linear(6, c)), c, 3)


BLOCKS: dict[str, Callable[[int, int], Block]] = {
    "conv": conv,
    "pointwise_conv": pointwise_conv,
    "linear": linear,
    "depthwise": depthwise,
    "transposed": transposed,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "residual": residual,
    "projected": projected,
    "gated": gated,
    "glu": glu,
    "gru": recurrent(nn.GRU, 1, True),
    "lstm": recurrent(nn.LSTM, 2, False),
    "transformer": transformer(False),
    "transformer_norm_first": transformer(True),
    "attention": attention,
}
GROUPED = {"grouped": grouped, "group_norm": group_norm}
CONCATENATED = {"dense": dense}
NUM_STEPS = 5
READOUTS: dict[str, Callable[[int], nn.Module]] = {
    "flatten": lambda c: nn.Sequential(nn.Flatten(), nn.Linear(c * NUM_STEPS, 2)),
    "positions first": lambda c: nn.Sequential(Computed(lambda self, x: x.mT.flatten(1)), nn.Linear(c * NUM_STEPS, 2)),
    "mean": lambda c: nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(c, 2)),
    "maximum": lambda c: nn.Sequential(Computed(lambda self, x: x.amax(2)), nn.Linear(c, 2)),
}


def build(blocks: list[tuple[str, int]], readout: str) -> tuple[nn.Module, int]:
    """A network of named blocks with their widths, and the least number of its permutations."""
    known = {**BLOCKS, **GROUPED, **CONCATENATED}
    parts = [conv(3, 4)]
    for name, width in blocks:
        parts.append(known[name](parts[-1].channels, width))
    modules = [part.module for part in parts]
    return nn.Sequential(*modules, READOUTS[readout](parts[-1].channels)), sum(part.brings for part in parts)
