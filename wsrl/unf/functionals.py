"""Universal neural functionals: networks over the weights of any network.

Letters: B networks, C channels, F features.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsrl.options import SHARE, at_least, check, one_of, option
from wsrl.symmetry.spec.axes import Within
from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.basis import patterns
from wsrl.unf.folding import Bundle
from wsrl.unf.layers import EquivariantLinear, Features, folded, unfolded
from wsrl.unf.nonlinearity import GATED, LINEAR, RELU
from wsrl.unf.pooling import PooledTensor

NORM_EPS = 1e-5
"""Added to mean squares before features are divided by their root."""
NONLINEARITIES = {"gated": GATED, "relu": RELU}


@dataclass(frozen=True, kw_only=True)
class UnfConfig:
    """Size of a universal neural functional.

    Attributes:
        channels: Channels of every hidden layer.
        depth: Equivariant layers.
        activation: ``gated``: every channel is multiplied by the sigmoid of another; or ``relu``.
        norm: Divide the features of each tensor by their root mean square before every layer but the first.
        num_frequencies: Octaves of sines and cosines of every number that goes in, beside the number itself.
        lowest_frequency: Of the first octave, in radians per unit.
        hidden: Width of the perceptron after invariant pooling.
        dropout: Share of the pooled features and of the perceptron's hidden units that is dropped in training.
        seed: Seed of the start.
    """

    channels: int = option(32, at_least(1))
    depth: int = option(3, at_least(1))
    activation: str = option("gated", one_of(*NONLINEARITIES))
    norm: bool = True
    num_frequencies: int = option(0, at_least(0))
    lowest_frequency: float = 0.5
    hidden: int = option(256, at_least(1))
    dropout: float = option(0.0, SHARE)
    seed: int = 0

    def __post_init__(self):
        check(self, "unf.")


class TensorNorm(nn.Module):
    """Divides the features of every tensor by their root mean square over its entries, with a factor per channel.

    Args:
        tensors: Tensors as layers see them.
        channels: Channels of the features.
    """

    def __init__(self, tensors: dict[str, Bundle], channels: int):
        super().__init__()
        self.scale = nn.ParameterList(torch.ones(tensor.factor * channels) for tensor in tensors.values())
        for number, tensor in enumerate(tensors.values()):
            self.register_buffer(f"averages_{number}", _averages(tensor, channels), persistent=False)

    def forward(self, features: Features) -> Features:
        """Normalise folded features."""
        return {name: self._one(number, tensor) for number, (name, tensor) in enumerate(features.items())}

    def _one(self, number: int, tensor: PooledTensor) -> PooledTensor:
        squares = tensor.square() @ getattr(self, f"averages_{number}")
        return tensor.scaled(self.scale[number] * (squares + NORM_EPS).rsqrt())


def _averages(bundle: Bundle, channels: int) -> Tensor:
    """The matrix that puts the mean of its tensor in place of every channel."""
    sizes = [member.factor * channels for member in bundle.members]
    return torch.block_diag(*(torch.full((size, size), 1 / size) for size in sizes))


class EquivariantStack(nn.Module):
    """Equivariant layers with nonlinearities between them, on folded features.

    Args:
        spec: Permutations of the weights.
        config: Size.
        in_channels: Channels of the features that come in.
        out_channels: Channels of a last layer without a nonlinearity; None leaves it out.
    """

    def __init__(self, spec: PlainSpec, config: UnfConfig, in_channels: int, out_channels: int | None = None):
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        self.frequencies = [config.lowest_frequency * 2**octave for octave in range(config.num_frequencies)]
        widths = [in_channels * (1 + 2 * config.num_frequencies), *[config.channels] * config.depth]
        last = [NONLINEARITIES[config.activation]] * config.depth
        if out_channels is not None:
            widths, last = [*widths[:-1], out_channels], [*last[:-1], LINEAR]
        self.layers = nn.ModuleList(
            EquivariantLinear(spec, before, after, nonlinearity=nonlinearity, generator=generator)
            for before, after, nonlinearity in zip(widths, widths[1:], last)
        )
        self.tensors = self.layers[0].tensors
        self.norms = nn.ModuleList(
            TensorNorm(self.tensors, config.channels) if config.norm else nn.Identity() for _ in self.layers[1:]
        )

    def forward(self, features: dict[str, Tensor]) -> Features:
        """Folded features of every tensor after the last layer, from features ``(B, *shape, C)``."""
        inner = folded(self.tensors, {name: self._encode(values) for name, values in features.items()})
        inner = self.layers[0].inner(inner)
        for norm, layer in zip(self.norms, self.layers[1:]):
            inner = layer.inner(norm(inner))
        return inner

    def _encode(self, values: Tensor) -> Tensor:
        phases = [values * frequency for frequency in self.frequencies]
        return torch.cat([values, *(wave(phase) for phase in phases for wave in (torch.sin, torch.cos))], dim=-1)


class InvariantPool(nn.Module):
    """All linear maps of weights that no permutation changes: the mean over the entries of every diagonal.

    Elements of short fixed axes are kept apart; positions of long ones are kept too where they are few.

    Args:
        tensors: Tensors as layers see them.
        channels: Channels of the features.
        within: Parents of permutations.
    """

    FEW_POSITIONS = 16

    def __init__(self, tensors: dict[str, Bundle], channels: int, within: Within):
        super().__init__()
        self.terms = []
        self.num_features = 0
        for name, tensor in tensors.items():
            # positions are kept where they are few
            kept = frozenset(axis for axis, position in enumerate(tensor.positions) if position)
            count = math.prod(tensor.shape[axis] for axis in kept)
            if count > self.FEW_POSITIONS:
                kept, count = frozenset(), 1
            # one term for each diagonal whose blocks are pooled but for these
            for pattern in patterns(tensor.axes, within):
                if frozenset(pattern.kept_axes) == kept and len(pattern.kept) == len(kept):
                    self.terms.append((name, pattern))
                    self.num_features += count * tensor.factor * channels

    def forward(self, features: Features) -> Tensor:
        """Invariants ``(B, F)`` of folded features."""
        return torch.cat([features[name].pool(pattern).flatten(1) for name, pattern in self.terms], dim=1)


class EquivariantNetwork(nn.Module):
    """Weights in, weights out: permuting the neurons of what goes in permutes what comes out.

    Args:
        spec: Permutations of the weights.
        config: Size.
        in_channels: Numbers of every weight that go in.
        out_channels: Numbers of every weight that come out.
    """

    def __init__(self, spec: PermutationSpec, config: UnfConfig, in_channels: int = 1, out_channels: int = 1):
        super().__init__()
        self.spec, self.config = spec, config
        self.stack = EquivariantStack(spec.plain, config, in_channels, out_channels)

    def forward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features ``(B, *shape, out_channels)`` of weights ``(B, *shape, in_channels)``."""
        inner = self.stack(self.spec.split(weights, leading=1))
        return self.spec.join(unfolded(self.stack.tensors, inner), leading=1)


class InvariantNetwork(nn.Module):
    """Weights in, features out that no permutation of neurons changes.

    Args:
        spec: Permutations of the weights.
        config: Size.
        in_channels: Numbers of every weight that go in.
        out_features: Length of the vector that comes out.
    """

    def __init__(self, spec: PermutationSpec, config: UnfConfig, in_channels: int = 1, out_features: int = 256):
        super().__init__()
        self.spec, self.config = spec, config
        plain = spec.plain
        self.stack = EquivariantStack(plain, config, in_channels)
        self.pool = InvariantPool(self.stack.tensors, config.channels, dict(plain.within))
        self.head = nn.Sequential(
            nn.LayerNorm(self.pool.num_features),
            nn.Dropout(config.dropout),
            nn.Linear(self.pool.num_features, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, out_features),
        )

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Features ``(B, F)`` of weights ``(B, *shape, in_channels)``."""
        return self.head(self.pool(self.stack(self.spec.split(weights, leading=1))))
