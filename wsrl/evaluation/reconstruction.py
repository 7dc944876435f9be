"""How well fields reproduce their signals: PSNR and SSIM, one number per field, and their summaries.

Letters: N fields, P points, C channels.
"""

import math

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

SSIM_WINDOW = 7


def psnr(values: Tensor, target: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Peak signal-to-noise ratio of each field in dB; infinite where the two are equal.

    Values are compared as they are, without clipping to the range.

    Args:
        values: What the fields take ``(N, P, C)``.
        target: What they should take, of the same shape.
        value_range: Smallest and largest value that can occur; the width is the peak.

    Returns:
        One number per field ``(N,)``.
    """
    error = (values - target).square().flatten(1).mean(dim=1)
    return 10.0 * torch.log10((value_range[1] - value_range[0]) ** 2 / error)


def ssim(values: Tensor, target: Tensor, grid: tuple[int, ...], value_range: tuple[float, float]) -> Tensor:
    """Structural similarity of each field with its signal (scikit-image, uniform window of 7).

    On a grid with an axis shorter than 7 the window is the longest odd one that fits. Channels are averaged.

    Args:
        values: What the fields take ``(N, P, C)`` on a regular grid in row-major order.
        target: What they should take, of the same shape.
        grid: Cells along each axis; at least 3 along each.
        value_range: Smallest and largest value that can occur.

    Returns:
        One number per field ``(N,)``, at most 1.

    Raises:
        ValueError: An axis of the grid is shorter than 3, where no window fits.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    window = min(SSIM_WINDOW, (min(grid) - 1) // 2 * 2 + 1)
    if window < 3:
        raise ValueError(f"SSIM needs at least 3 cells along each axis of the grid, got {tuple(grid)}")
    shape = (len(values), *grid, values.shape[-1])
    pairs = zip(values.reshape(shape).cpu().numpy(), target.reshape(shape).cpu().numpy())
    width = value_range[1] - value_range[0]
    scores = [structural_similarity(a, b, win_size=window, data_range=width, channel_axis=-1) for a, b in pairs]
    return torch.tensor(scores, dtype=torch.float64)


def summarise(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and tail of one metric over fields, under dotted keys.

    Args:
        name: Prefix of the keys, such as ``reconstruction.psnr``.
        values: One finite number per field.

    Returns:
        ``<name>_mean``, ``_std``, ``_min``, ``_p05`` (5th percentile) and ``_median``.
    """
    values = np.asarray(values, dtype=np.float64)
    assert values.size and math.isfinite(values.sum()), f"{name}: no finite values to summarise"
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_std": float(values.std()),
        f"{name}_min": float(values.min()),
        f"{name}_p05": float(np.percentile(values, 5)),
        f"{name}_median": float(np.median(values)),
    }
