"""PSNR and SSIM of fields against their definitions."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wsrl.evaluation.reconstruction import psnr, ssim, summarise


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 8 * 9, 2, generator=generator)
    return target + 0.05 * torch.randn(target.shape, generator=generator), target


def test_psnr_agrees_with_scikit_image(pair):
    values, target = pair
    expected = [peak_signal_noise_ratio(t.numpy(), v.numpy(), data_range=2.0) for v, t in zip(*pair)]
    assert torch.allclose(psnr(values, target, (-1.0, 1.0)), torch.tensor(expected).float(), atol=1e-4)


def test_psnr_of_a_known_error():
    target = torch.zeros(1, 16, 1)
    assert psnr(target + 0.1, target, (0.0, 1.0)).item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(target, target, (0.0, 1.0)).item() == float("inf")


def test_ssim_agrees_with_scikit_image_channel_by_channel(pair):
    values, target = pair
    ours = ssim(values, target, (8, 9), (0.0, 1.0))
    grids = [tensor.reshape(3, 8, 9, 2).numpy() for tensor in pair]
    single = [
        [structural_similarity(grids[0][n, ..., c], grids[1][n, ..., c], data_range=1.0) for c in range(2)]
        for n in range(3)
    ]
    assert np.allclose(ours.numpy(), np.mean(single, axis=1), atol=1e-6)


def test_ssim_is_one_for_equal_pictures_and_fits_small_grids(pair):
    _, target = pair
    assert torch.allclose(ssim(target, target, (8, 9), (0.0, 1.0)), torch.ones(3, dtype=torch.float64))
    small = target[:, :12]
    assert ssim(small, small, (3, 4), (0.0, 1.0)).tolist() == pytest.approx([1.0] * 3)
    with pytest.raises(ValueError, match="at least 3 cells"):
        ssim(target[:, :4], target[:, :4], (2, 2), (0.0, 1.0))


def test_summary_has_dotted_keys():
    summary = summarise("reconstruction.psnr", np.array([30.0, 40.0]))
    assert summary["reconstruction.psnr_mean"] == 35.0
    assert summary["reconstruction.psnr_min"] == 30.0
