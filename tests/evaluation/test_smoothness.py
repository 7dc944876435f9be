"""Smoothness of weights: against scikit-learn's ridge regression, planted linear maps, and spectra by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from wsrl.evaluation.smoothness import _ridge_r2, linear_r2, spectrum


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("num", [20, 200])  # fewer and more items than numbers of a signal
def test_ridge_is_scikit_learns(num):
    x, y, others, expected = drawn(num, 50), drawn(num, 7, seed=1), drawn(30, 50, seed=2), drawn(30, 7, seed=3)
    strength = 0.3 * float((x - x.mean(0)).square().sum() / 50)
    model = Ridge(alpha=strength).fit(x.numpy(), y.numpy())
    error = ((expected.numpy() - model.predict(others.numpy())) ** 2).sum()
    reference = 1 - error / ((expected.numpy() - y.numpy().mean(0)) ** 2).sum()
    assert _ridge_r2(x, y, others, expected, 0.3) == pytest.approx(reference, abs=1e-9)


def test_a_linear_function_is_found_and_noise_is_not():
    signals, matrix = drawn(400, 10), drawn(10, 30, seed=1)
    weights = signals @ matrix
    assert linear_r2((signals[:300], signals[300:]), (weights[:300], weights[300:])) > 0.999
    noise = drawn(400, 30, seed=2)
    assert abs(linear_r2((signals[:300], signals[300:]), (noise[:300], noise[300:]))) < 0.1
    half = weights / weights.std(0) + noise
    found = linear_r2((signals[:300], signals[300:]), (half[:300], half[300:]))
    assert found == pytest.approx(0.5, abs=0.08)
    reference = Ridge(alpha=1.0).fit(signals[:300].numpy(), half[:300].numpy()).predict(signals[300:].numpy())
    assert found == pytest.approx(r2_score(half[300:], reference, multioutput="variance_weighted"), abs=0.02)


@pytest.mark.parametrize("num", [5, 4000])
def test_spectrum_by_hand(num):
    points = torch.zeros(num, 6)
    points[:, 0] = torch.linspace(-1, 1, num)
    found = spectrum(points, (1, 3))
    assert found["effective_dimension"] == pytest.approx(1) and found["variance_in_1"] == pytest.approx(1)
    assert found["std"] == pytest.approx(float(points[:, 0].std()) / np.sqrt(6), rel=1e-5)
    ball = spectrum(drawn(4000, 6), (3,))
    assert ball["effective_dimension"] == pytest.approx(6, abs=0.1) and ball["variance_in_3"] == pytest.approx(
        0.5, abs=0.03
    )
