"""SSIM against scikit-image, picture by picture."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from wsrl.signals.fidelity import ssim


@pytest.mark.parametrize(("grid", "channels"), [((28, 28), 1), ((8, 11), 3), ((5, 9), 1), ((9, 8, 10), 2), ((30,), 1)])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_ssim_is_that_of_scikit_image(grid, channels, value_range):
    generator = torch.Generator().manual_seed(0)
    shape = (3, math.prod(grid), channels)
    target = torch.rand(shape, generator=generator) * (value_range[1] - value_range[0]) + value_range[0]
    values = target + 0.2 * torch.randn(shape, generator=generator)
    window = min(7, (min(grid) - 1) // 2 * 2 + 1)
    width = value_range[1] - value_range[0]
    expected = [
        structural_similarity(
            a.reshape(*grid, channels).double().numpy(),
            b.reshape(*grid, channels).double().numpy(),
            win_size=window,
            data_range=width,
            channel_axis=-1,
        )
        for a, b in zip(values, target)
    ]
    assert ssim(values, target, grid, value_range).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(target, target, grid, value_range).tolist() == pytest.approx([1.0] * 3)


def test_ssim_needs_three_cells():
    assert ssim(torch.zeros(2, 10, 1), torch.zeros(2, 10, 1), (2, 5), (0.0, 1.0)).isnan().all()
