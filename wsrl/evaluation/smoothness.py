"""How smooth a function of the signal the weights of fitted fields are, and how many dimensions they fill.

Letters: N fields, W weights of a field, F numbers of a signal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths to choose from, over the mean square of a number of the signals times their number."""
INNER = 5
"""Every so many-th training field is set aside to choose the strength on."""


def linear_r2(signals: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]) -> float:
    """Share of the variance of unseen fields' weights that a linear map of their signals predicts.

    Ridge regression about the means of the training part; its strength is chosen among ``RIDGES`` on a fifth of the
    training part, and the test part is looked at once.

    Args:
        signals: Signals ``(N, F)`` of the training and of the test part.
        weights: Trainable weights ``(N, W)`` of both.

    Returns:
        One less the squared error over the squared distance from the training mean, summed over all weights.
    """
    inputs, outputs = signals[0].double(), weights[0].double()
    # The strength that is best on a fifth of the training part, then all of it.
    inner = torch.arange(len(inputs)) % INNER > 0
    part = (inputs[inner], outputs[inner], inputs[~inner], outputs[~inner])
    best = max(RIDGES, key=lambda strength: _ridge_r2(*part, strength))
    return _ridge_r2(inputs, outputs, signals[1].double(), weights[1].double(), best)


def _ridge_r2(inputs: Tensor, outputs: Tensor, others: Tensor, expected: Tensor, strength: float) -> float:
    mean_in, mean_out = inputs.mean(dim=0), outputs.mean(dim=0)
    x, y, moved = inputs - mean_in, outputs - mean_out, expected - mean_out
    penalty = strength * float(x.square().sum() / x.shape[1]) + torch.finfo(x.dtype).tiny
    # Normal equations in the smaller of the two sizes: (X'X + k)^-1 X'Y = X'(XX' + k)^-1 Y.
    if x.shape[1] <= len(x):
        solution = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)  # (F, W)
    else:
        solution = x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype), y)
    return float(1 - (moved - (others - mean_in) @ solution).square().sum() / moved.square().sum())


def spectrum(points: Tensor, shares_in: Sequence[int] = (64, 256)) -> dict[str, float]:
    """How the variance of points is spread over the principal axes.

    Args:
        points: Points ``(N, W)``, N at least 2.
        shares_in: Numbers of axes.

    Returns:
        ``std``, root mean square over the coordinates of their standard deviation; ``effective_dimension``, the
        participation ratio ``(sum l)^2 / sum l^2`` of the eigenvalues of the covariance; ``variance_in_<k>``, the share
        of the variance on the first k axes.
    """
    # The eigenvalues of the covariance are those of the smaller of both products.
    centred = (points - points.mean(dim=0)).double()
    small = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    values = torch.linalg.eigvalsh(small).flip(0).clamp(min=0)
    total = values.sum()
    scores = {
        "std": float((total / (len(points) - 1) / points.shape[1]).sqrt()),
        "effective_dimension": float(total.square() / values.square().sum()),
    }
    return scores | {f"variance_in_{num}": float(values[:num].sum() / total) for num in shares_in}
