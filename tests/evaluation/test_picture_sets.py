"""Distances of feature sets beside SciPy, scikit-learn, double loops and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from wsrl.evaluation import picture_sets
from wsrl.evaluation.picture_sets import (
    frechet_distance,
    median_distance,
    mmd_gaussian,
    mmd_polynomial,
    precision_recall,
)

SIZE = 6


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of few rows, so that every set has several."""
    monkeypatch.setattr(picture_sets, "CHUNK", 16)


def drawn(num, seed, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return scale * torch.randn(num, SIZE, generator=generator, dtype=torch.float64) @ mixing + shift


def with_moments(mean, covariance):
    """Points whose sample moments are exactly those."""
    points = np.random.default_rng(0).normal(size=(200, SIZE))
    points -= points.mean(axis=0)
    white = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T
    return torch.from_numpy(white @ np.linalg.cholesky(covariance).T + mean)


def test_frechet_agrees_with_the_matrix_root_of_scipy():
    x, y = drawn(90, 0), drawn(70, 1, shift=0.5, scale=1.7) ** 3
    covariances = [np.cov(part.numpy().T) for part in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-8)


def test_frechet_of_gaussians_has_a_closed_form():
    a, b = np.arange(1.0, SIZE + 1), np.arange(2.0, SIZE + 2) ** 2
    x, y = with_moments(np.zeros(SIZE), np.diag(a)), with_moments(np.full(SIZE, 2.0), np.diag(b))
    assert frechet_distance(x, y) == pytest.approx(4.0 * SIZE + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-8)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_frechet_stands_fewer_points_than_features():
    x = drawn(4, 0)
    shifted = x + torch.eye(SIZE, dtype=torch.float64)[0] * 3
    assert frechet_distance(x, shifted) == pytest.approx(9.0, rel=1e-4)


def unbiased(xx, yy, xy):
    n, m = len(xx), len(yy)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean()


def test_mmds_agree_with_the_kernels_of_scikit_learn():
    x, y = drawn(50, 0), drawn(41, 1, shift=0.4)
    kernels = [polynomial_kernel(*pair, degree=3) for pair in ((x, x), (y, y), (x, y))]  # gamma is 1 / F, coef0 is 1
    assert mmd_polynomial(x, y) == pytest.approx(unbiased(*kernels), rel=1e-9)
    kernels = [rbf_kernel(*pair, gamma=1 / (2 * 1.5**2)) for pair in ((x, x), (y, y), (x, y))]
    assert mmd_gaussian(x, y, bandwidth=1.5) == pytest.approx(unbiased(*kernels), rel=1e-9)


def test_the_bandwidth_is_the_median_distance_of_the_references():
    x, y = drawn(50, 0), drawn(41, 1, shift=0.4)
    distances = [float((y[i] - y[j]).norm()) for i in range(41) for j in range(i)]
    assert median_distance(y) == pytest.approx(np.sort(distances)[(len(distances) - 1) // 2])
    assert mmd_gaussian(x, y) == mmd_gaussian(x, y, bandwidth=median_distance(y))
    assert median_distance(torch.ones(5, 2)) == 1.0


def test_mmd_of_gaussians_has_a_closed_form():
    """Of N(0, 1) and N(m, 1) with bandwidth s: 2 c (1 - exp(-m^2 / (2 (s^2 + 2)))), c = s / sqrt(s^2 + 2)."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3000, 1, generator=generator), torch.randn(3000, 1, generator=generator) + 1.5
    width = 0.8
    expected = 2 * width / (width**2 + 2) ** 0.5 * (1 - np.exp(-(1.5**2) / (2 * (width**2 + 2))))
    picture_sets.CHUNK = 1024
    assert mmd_gaussian(x, y, bandwidth=width) == pytest.approx(expected, abs=0.02)
    assert abs(mmd_gaussian(x, torch.randn(3000, 1, generator=generator), bandwidth=width)) < 0.003


def test_mmd_polynomial_of_one_direction_has_a_closed_form():
    """Of x = 0 and y = (a, 0, ..): 1 + (a^2 / F + 1)^3 - 2."""
    x, y = torch.zeros(5, SIZE), torch.zeros(7, SIZE)
    y[:, 0] = 3.0
    assert mmd_polynomial(x, y) == pytest.approx((9 / SIZE + 1) ** 3 - 1)


def test_precision_and_recall_agree_with_loops():
    x, y = drawn(40, 0), drawn(33, 1, shift=1.0, scale=1.3)

    def inside(points, centres):
        radii = [
            sorted(float((a - b).norm()) for j, b in enumerate(centres) if j != i)[2] for i, a in enumerate(centres)
        ]
        return np.mean([any((p - c).norm() <= r for c, r in zip(centres, radii)) for p in points])

    expected = inside(x, y), inside(y, x)
    assert precision_recall(x, y) == pytest.approx(expected) and 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_precision_and_recall_of_known_sets():
    line = torch.arange(20.0)[:, None]
    assert precision_recall(line, line) == (1.0, 1.0)
    assert precision_recall(line + 1000, line) == (0.0, 0.0)
    assert precision_recall(line[:5].repeat(4, 1), line) == (1.0, 5 / 20)  # four copies: balls of radius zero
