"""How well values reproduce a signal: PSNR and SSIM, one number per field.

Letters: N fields, P points, C channels.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrl.signals.form import SignalForm

SSIM_WINDOW = 7
SSIM_CONSTANTS = (0.01, 0.03)
# An error below float32's own rounding is reported as this many decibels, so that means stay finite.
PSNR_LIMIT = 150.0


def in_quantity(values: Tensor, form: SignalForm) -> Tensor:
    """What fields give, as values of the quantity that their signals have.

    Args:
        values: What the fields give, of any shape.
        form: That of the signals.

    Returns:
        Intensities as they are, distances cut to the range, the probability of inside for occupancy.
    """
    if not form.has_inside:
        return values
    return values.clamp(*form.value_range) if form.quantity == "sdf" else torch.sigmoid(-values)


def sign_agreement(values: Tensor, target: Tensor, form: SignalForm) -> Tensor:
    """Share of the points on the right side of the surface, for each field ``(N,)``.

    Args:
        values: What the fields give ``(N, P, 1)``, negative inside.
        target: What their signals say, of the same shape.
        form: That of the signals, which have an inside.
    """
    inside = target < 0 if form.quantity == "sdf" else target > 0.5
    return ((values < 0) == inside).float().mean((1, 2))


def psnr(values: Tensor, target: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Peak signal-to-noise ratio of each field in dB, at most ``PSNR_LIMIT``.

    Values are compared as they are, without clipping to the range.

    Args:
        values: What the fields take ``(N, P, C)``.
        target: What they should take, of the same shape.
        value_range: Smallest and largest value that can occur; the width is the peak.

    Returns:
        One number per field ``(N,)``.
    """
    error = (values - target).square().flatten(1).mean(dim=1)
    return (10.0 * torch.log10((value_range[1] - value_range[0]) ** 2 / error)).clamp(max=PSNR_LIMIT)


def ssim(values: Tensor, target: Tensor, grid: tuple[int, ...], value_range: tuple[float, float]) -> Tensor:
    """Structural similarity of each field with its signal: scikit-image's, uniform window of 7, all fields at once.

    On a grid with an axis shorter than 7 the window is the longest odd one that fits; below 3 cells no window fits and
    the result is NaN. Channels are averaged.

    Args:
        values: What the fields take ``(N, P, C)`` on a regular grid in row-major order.
        target: What they should take, of the same shape.
        grid: Cells along each axis.
        value_range: Smallest and largest value that can occur.

    Returns:
        One number per field ``(N,)``, at most 1.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    window = min(SSIM_WINDOW, (min(grid) - 1) // 2 * 2 + 1)
    if window < 3:
        return torch.full((len(values),), torch.nan, dtype=torch.float64)
    x, y = (t.double().reshape(len(t), *grid, t.shape[-1]).movedim(-1, 1) for t in (values, target))  # (N, C, *grid)
    mean = partial((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(grid) - 1], kernel_size=window, stride=1)
    mean_x, mean_y = mean(x), mean(y)
    unbiased = window ** len(grid) / (window ** len(grid) - 1)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    variances = unbiased * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    small = [(constant * (value_range[1] - value_range[0])) ** 2 for constant in SSIM_CONSTANTS]
    scores = (2 * mean_x * mean_y + small[0]) * (2 * covariance + small[1])
    scores = scores / ((mean_x**2 + mean_y**2 + small[0]) * (variances + small[1]))
    return scores.flatten(1).mean(1).cpu()
