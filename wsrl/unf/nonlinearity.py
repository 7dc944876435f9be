"""What follows the linear map of an equivariant layer.

Letters: D channels out, E numbers before the nonlinearity.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Nonlinearity:
    """A leaky rectifier, or a linear half times twice the sigmoid of the other.

    The gate lets a layer multiply a weight with what is known of its neurons, as a message that passes along it.

    Attributes:
        slope: Slope of the rectifier below zero, 0 to 1; 1 for no rectifier.
        gated: Whether the map gives two numbers for each channel, of which the second gates the first.

    Source: Dauphin et al., Language modeling with gated convolutional networks, ICML 2017, arXiv 1612.08083.
    """

    slope: float = 0.0
    gated: bool = False

    @property
    def channels_per_output(self) -> int:
        """Channels before the nonlinearity for each channel after it."""
        return 2 if self.gated else 1

    @property
    def gain(self) -> float:
        """Variance of a weight, times the fan-in, that makes unit variance out of unit variance."""
        return 0.85 if self.gated else 2 / (1 + self.slope**2)  # the mean square of the gate is 1.17 at unit variance

    def __call__(self, values: Tensor, *, fresh: bool = True) -> Tensor:
        """``(..., D)`` of values ``(..., E)``, which are overwritten where they are fresh."""
        if self.gated:
            linear, gate = values.chunk(2, dim=-1)
            return linear * (2 * torch.sigmoid(gate))
        if self.slope == 1:
            return values
        return F.relu(values, fresh) if self.slope == 0 else F.leaky_relu(values, self.slope, fresh)


LINEAR = Nonlinearity(slope=1.0)
RELU = Nonlinearity()
GATED = Nonlinearity(gated=True)
