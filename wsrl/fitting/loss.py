"""What a field pays at a point: squared error, squared error of clamped distances, or the logistic loss of occupancy.

Letters: P points, C channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrl.signals.form import SignalForm

LOSSES = ("squared", "clamped", "logistic")
LOSS_OF_QUANTITY = {"intensity": "squared", "sdf": "clamped", "occupancy": "logistic"}


@dataclass(frozen=True, kw_only=True)
class PointLoss:
    """The loss of one value, with its derivative.

    Attributes:
        kind: ``squared``; ``clamped``: squared, but a field may lie beyond a target that is at an end of the range (the
            one-sided form of DeepSDF's clamped loss, whose gradient does not vanish where only the field is beyond);
            ``logistic``: cross entropy of targets 1 inside and 0 outside, the field being the logit of outside.
        low: Lower end of the clamped range.
        high: Upper end of the clamped range.

    Source: DeepSDF, Park et al., CVPR 2019, equation 4; Occupancy Networks, Mescheder et al., CVPR 2019, equation 3.
    """

    kind: str = "squared"
    low: float = 0.0
    high: float = 1.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each value, differentiable.

        Args:
            outputs: What the fields give.
            targets: What the signals say, of the same shape.
        """
        if self.kind == "logistic":
            return F.softplus(outputs) - (1 - targets) * outputs
        return self._wrong(outputs, targets).square()

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The derivative of each loss by the field's value.

        Args:
            outputs: What the fields give.
            targets: What the signals say, of the same shape.
        """
        if self.kind == "logistic":
            return torch.sigmoid(outputs) - (1 - targets)
        return 2 * self._wrong(outputs, targets)

    def _wrong(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wrong = outputs - targets
        if self.kind == "clamped":
            beyond = ((targets >= self.high) & (wrong > 0)) | ((targets <= self.low) & (wrong < 0))
            wrong = wrong.masked_fill(beyond, 0.0)
        return wrong


SQUARED = PointLoss()


def loss_of(form: SignalForm) -> PointLoss:
    """The loss that signals of a form are fitted with."""
    return PointLoss(kind=LOSS_OF_QUANTITY[form.quantity], low=form.value_range[0], high=form.value_range[1])
