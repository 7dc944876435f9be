"""What follows the linear map of an equivariant layer.

Letters: D channels out, E numbers before the nonlinearity.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Nonlinearity:
    """A leaky rectifier, or a linear half gated by a rectified one.

    The gate lets a layer multiply a weight with what is known of its neurons, as a message that passes along it.

    Attributes:
        slope: Slope of the rectifier below zero, 0 to 1; 1 for no rectifier.
        gated: Whether the map gives two numbers for each channel, of which the second, rectified, multiplies the first.

    Source: Shazeer, GLU variants improve transformer, 2020, arXiv 2002.05202 (ReGLU).
    """

    slope: float = 0.0
    gated: bool = False

    @property
    def numbers(self) -> int:
        """Numbers before the nonlinearity for each channel after it."""
        return 2 if self.gated else 1

    @property
    def gain(self) -> float:
        """Variance of a weight, times the fan-in, that makes unit variance out of unit variance."""
        rectifier = 2 / (1 + self.slope**2)
        return rectifier**0.5 if self.gated else rectifier

    def __call__(self, values: Tensor) -> Tensor:
        """``(..., D)`` of fresh values ``(..., E)``, which may be overwritten."""
        if self.gated:
            linear, gate = values.chunk(2, dim=-1)
            return linear * F.leaky_relu(gate, self.slope)
        if self.slope == 1:
            return values
        return F.relu_(values) if self.slope == 0 else F.leaky_relu_(values, self.slope)


LINEAR = Nonlinearity(slope=1.0)
RELU = Nonlinearity()
GATED = Nonlinearity(gated=True)
