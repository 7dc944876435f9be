"""Reconstruction along the straight lines between pairs of fields, in the space of the weights.

Letters: N fields, W numbers of a field, P points of a signal, C channels, T points of a path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsrl.fields.representation import Representation
from wsrl.fitting.gradient import AutogradGradient, KernelGradient, make_gradient
from wsrl.fitting.loss import loss_of
from wsrl.signals.fidelity import in_quantity, psnr
from wsrl.signals.signal import Signal
from wsrl.symmetry.matching.barriers import NUM_POINTS, barrier, path_losses

FIELDS_AT_ONCE = 16

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class LinearPath:
    """What lies on the straight lines between pairs of fields.

    Attributes:
        losses: Reconstruction loss ``(N, T)``, from the first field to the second.
        psnr: PSNR ``(N, T)`` in dB of the same fields.
    """

    losses: np.ndarray
    psnr: np.ndarray

    @property
    def barriers(self) -> np.ndarray:
        """Largest excess ``(N,)`` of the loss over the line between those of the ends."""
        return np.array([barrier(losses) for losses in self.losses])


@torch.no_grad()
def path_between(
    representation: Representation,
    signals: Sequence[Signal],
    first: Weights,
    second: Weights,
    num_points: int = NUM_POINTS,
) -> LinearPath:
    """Reconstruction loss along the straight lines between pairs of fields, in the space of the weights.

    Args:
        representation: What the weights are, on the CPU.
        signals: What either field of a pair was fitted to, in order; of one quantity, with as many points each.
        first: Weights ``(N, *shape)``.
        second: Weights of the partners.
        num_points: Points of the path, both ends included.

    Source: linear mode connectivity, Frankle et al., ICML 2020; ``max_a L((1-a) t1 + a t2) - ((1-a) L(t1) + a L(t2))``.
    """
    kernel, layout = make_gradient(representation, "cpu"), representation.layout
    ends = [layout.flatten(weights) for weights in (first, second)]  # (N, W) each
    scores = []
    for begin in range(0, len(signals), FIELDS_AT_ONCE):
        rows = slice(begin, begin + FIELDS_AT_ONCE)
        measured = _scores(representation, kernel, signals[rows])
        scores.append(path_losses(measured, *({"numbers": end[rows]} for end in ends), num_points))
    losses, ratios = np.concatenate(scores, -1).astype(np.float64).transpose(1, 2, 0)  # (2, N, T)
    return LinearPath(losses, ratios)


def _scores(
    representation: Representation, kernel: AutogradGradient | KernelGradient, signals: Sequence[Signal]
) -> Callable[[Weights], Tensor]:
    """A function from the ``numbers`` ``(N, W)`` of fields to their losses and PSNR ``(2, N)``."""
    shared = all(signal.coords is signals[0].coords for signal in signals)
    coords = signals[0].coords if shared else torch.stack([signal.coords for signal in signals])
    points = kernel.prepare(representation.encoding(coords))
    targets = torch.stack([signal.values for signal in signals])
    form = signals[0].form
    weighed = 1.0 if signals[0].weights is None else torch.stack([signal.weights for signal in signals]).unsqueeze(-1)

    def scores(weights: Weights) -> Tensor:
        # The loss that the fields were fitted with, and the PSNR of the quantity that people look at.
        values = kernel.values(weights["numbers"], points)  # (N, P, C)
        losses = (loss_of(form)(values, targets) * weighed).mean((1, 2))
        return torch.stack([losses, psnr(in_quantity(values, form), targets, form.value_range)])

    return scores
