"""How well values reproduce a signal: PSNR and SSIM, one number per field.

Letters: N fields, P points, C channels.
"""

import torch
from torch import Tensor

SSIM_WINDOW = 7
# An error below float32's own rounding is reported as this many decibels, so that means stay finite.
PSNR_LIMIT = 150.0


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
    """Structural similarity of each field with its signal (scikit-image, uniform window of 7).

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
    from skimage.metrics import structural_similarity

    window = min(SSIM_WINDOW, (min(grid) - 1) // 2 * 2 + 1)
    if window < 3:
        return torch.full((len(values),), torch.nan, dtype=torch.float64)
    shape = (len(values), *grid, values.shape[-1])
    pairs = zip(values.reshape(shape).cpu().numpy(), target.reshape(shape).cpu().numpy())
    width = value_range[1] - value_range[0]
    scores = [structural_similarity(a, b, win_size=window, data_range=width, channel_axis=-1) for a, b in pairs]
    return torch.tensor(scores, dtype=torch.float64)
