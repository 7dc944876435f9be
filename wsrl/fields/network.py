"""The coordinate network that every field is: a fixed encoding followed by a plain stack of linear layers.

Letters: N fields, P points, D coordinates, F features, C channels. Inside, activations are channel-major ``(N, F, P)``:
each layer is then one batched matrix product without a transpose, and the first layer, whose input all fields share,
is a single product.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrl.options import at_least, check, one_of, option

ENCODINGS = ("fourier", "identity")
ACTIVATIONS = ("leaky_relu", "silu", "sine")


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """Architecture of a coordinate network.

    Attributes:
        width: Neurons of each hidden layer.
        depth: Number of hidden layers.
        encoding: ``fourier``: sines and cosines of random projections; ``identity``: the coordinates themselves.
        num_frequencies: Random projections of the Fourier encoding; the network sees twice as many features.
        frequency_scale: Standard deviation of the projections, in cycles per unit of [-1, 1].
        activation: ``leaky_relu``, ``silu`` or ``sine``.
        omega: Factor inside the sine of the first hidden layer; 1 in the others is absorbed by their initialisation.
        residual: Add the input of each square hidden layer to its output.
        seed: Seed of the random projections.
    """

    width: int = option(64, at_least(1))
    depth: int = option(3, at_least(1))
    encoding: str = option("fourier", one_of(*ENCODINGS))
    num_frequencies: int = option(32, at_least(1))
    frequency_scale: float = 1.0
    activation: str = option("leaky_relu", one_of(*ACTIVATIONS))
    omega: float = 30.0
    residual: bool = False
    seed: int = 0

    def __post_init__(self):
        check(self, "field.")

    def num_features(self, in_features: int) -> int:
        """Size of the encoding of a point with ``in_features`` coordinates."""
        return 2 * self.num_frequencies if self.encoding == "fourier" else in_features

    def layer_shapes(self, in_features: int, out_features: int) -> list[tuple[int, int]]:
        """``(out, in)`` of every linear layer, the output layer last."""
        sizes = [self.num_features(in_features), *[self.width] * self.depth, out_features]
        return [(fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(sizes)]


class Encoding(nn.Module):
    """The fixed encoding of coordinates; no trained parameters.

    Source: random Fourier features, Tancik et al., NeurIPS 2020, section 5.
    """

    def __init__(self, config: FieldConfig, in_features: int):
        super().__init__()
        self.config = config
        if config.encoding == "fourier":
            generator = torch.Generator().manual_seed(config.seed)
            projection = torch.randn(config.num_frequencies, in_features, generator=generator)
            self.register_buffer("projection", projection * config.frequency_scale)

    def forward(self, coords: Tensor) -> Tensor:
        """Encode ``coords (P, D)`` or ``(N, P, D)`` as features ``(F, P)`` or ``(N, F, P)``."""
        columns = coords.mT
        if self.config.encoding == "identity":
            return columns.contiguous()
        phases = (2 * math.pi) * (self.projection @ columns)
        return torch.cat([phases.sin(), phases.cos()], dim=-2)


def activate(config: FieldConfig, values: Tensor, first: bool) -> Tensor:
    """The activation after a hidden layer; only the first sine layer carries omega."""
    if config.activation == "leaky_relu":
        return F.leaky_relu(values, 0.2)
    if config.activation == "silu":
        return F.silu(values)
    return torch.sin(values * config.omega) if first else torch.sin(values)


def apply_layers(
    config: FieldConfig,
    features: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    scales: Sequence[Tensor] | None = None,
) -> Tensor:
    """Run the stack of layers for many fields at once.

    Args:
        config: Architecture; only activation and residual matter here.
        features: Encoded points ``(F, P)``, shared by all fields, or ``(N, F, P)``.
        weights: One ``(N, out, in)`` or shared ``(out, in)`` per layer.
        biases: One ``(N, out)`` or shared ``(out,)`` per layer.
        scales: Factors ``(N, in)`` of N instances of shared weights on the input of every layer, which equal factors on
            the columns of its weight. The features are then those of all instances side by side, ``(F, N * P)``, so
            that each layer is one product.

    Returns:
        Values ``(N, C, P)``, or ``(C, P)`` where nothing had a batch axis.
    """
    hidden = features
    last = len(weights) - 1
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        scaled = hidden
        if scales is not None:
            scaled = (hidden.unflatten(-1, (len(scales[i]), -1)) * scales[i].mT.unsqueeze(-1)).flatten(-2)
        out = linear(scaled, weight, bias)
        if i < last:
            out = activate(config, out, first=i == 0)
            if config.residual and out.shape[-2] == hidden.shape[-2] and i > 0:
                out = (out + hidden) * math.sqrt(0.5)
        hidden = out
    return hidden


def linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``weight @ hidden + bias`` on channel-major activations, as one product wherever the operands allow."""
    if weight.ndim == 3 and hidden.ndim == 2:  # (N, out, in) x (in, P): the fields' rows stacked into one product
        stacked = weight.reshape(-1, weight.shape[-1])
        shift = bias.expand(weight.shape[:2]).reshape(-1, 1)
        return torch.addmm(shift, stacked, hidden).view(*weight.shape[:2], hidden.shape[-1])
    if weight.ndim == 3 and hidden.ndim == 3:
        return torch.baddbmm(bias.unsqueeze(-1), weight, hidden)
    if hidden.ndim == 2:
        return torch.addmm(bias.unsqueeze(-1), weight, hidden)
    return weight @ hidden + bias.unsqueeze(-1)


def initial_layers(
    config: FieldConfig, in_features: int, out_features: int, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Random weights and biases of a network.

    Returns:
        Weights ``(out, in)`` and biases ``(out,)`` of every layer: He's initialisation for (leaky) rectifiers; for
        sines the uniform one of SIREN (Sitzmann et al., NeurIPS 2020, section 3.2), with the omega of the deeper
        layers multiplied into the weights.
    """
    weights, biases = [], []
    shapes = config.layer_shapes(in_features, out_features)
    for i, (fan_out, fan_in) in enumerate(shapes):
        if config.activation == "sine":
            bound = 1 / fan_in if i == 0 else math.sqrt(6 / fan_in) / (config.omega if i == len(shapes) - 1 else 1)
        else:
            bound = math.sqrt((3 if i == len(shapes) - 1 else 6) / fan_in)
        uniform = torch.rand(fan_out, fan_in + 1, generator=generator) * 2 - 1
        weights.append(uniform[:, :-1] * bound)
        biases.append(uniform[:, -1] * (1 / math.sqrt(fan_in) if config.activation == "sine" else 0))
    return weights, biases


class Trunk(nn.Module):
    """One coordinate network as plain modules: what PEFT wraps and what a fitted adapter adapts.

    Attributes:
        layers: ``nn.Linear`` layers in order, the output layer last.
    """

    def __init__(self, config: FieldConfig, in_features: int, out_features: int):
        super().__init__()
        self.config = config
        self.encoding = Encoding(config, in_features)
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_out, fan_in in config.layer_shapes(in_features, out_features)
        )

    @property
    def weights(self) -> list[Tensor]:
        """Weight ``(out, in)`` of every layer."""
        return [layer.weight for layer in self.layers]

    @property
    def biases(self) -> list[Tensor]:
        """Bias ``(out,)`` of every layer."""
        return [layer.bias for layer in self.layers]

    def forward(self, coords: Tensor) -> Tensor:
        """Values ``(P, C)`` at ``coords (P, D)``; calls every layer as a module, so adapters on them act."""
        hidden = self.encoding(coords).mT
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            out = layer(hidden)
            if i < last:
                out = activate(self.config, out, first=i == 0)
                if self.config.residual and out.shape[-1] == hidden.shape[-1] and i > 0:
                    out = (out + hidden) * math.sqrt(0.5)
            hidden = out
        return hidden
