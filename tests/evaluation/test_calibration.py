"""Calibration scores against sums written out by hand."""

import math

import pytest
import torch

from wsrl.errors import UserError
from wsrl.evaluation.calibration import accuracy, calibration, expected_calibration_error, log_likelihood, predictive


def two_classes(confidence, hits, num=10):
    """``num`` predictions of class 0 with one confidence, of which ``hits`` are right."""
    probabilities = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64).repeat(num, 1)
    return probabilities.log(), torch.tensor([0] * hits + [1] * (num - hits))


def test_calibrated_predictions_have_no_error_and_overconfident_ones_their_gap():
    assert expected_calibration_error(*two_classes(0.8, 8)) == pytest.approx(0)
    assert expected_calibration_error(*two_classes(0.8, 5)) == pytest.approx(0.3)
    assert expected_calibration_error(*two_classes(1 - 1e-9, 6)) == pytest.approx(0.4)


def test_gaps_of_different_bins_do_not_cancel():
    low, high = two_classes(0.6, 8), two_classes(0.9, 7)
    both = [torch.cat(pair) for pair in zip(low, high)]
    assert expected_calibration_error(*both) == pytest.approx(0.2)
    assert expected_calibration_error(*both, num_bins=1) == pytest.approx(0)
    with pytest.raises(UserError, match="num_bins is 0"):
        expected_calibration_error(*both, num_bins=0)


def test_scores_of_a_predictive_mean():
    samples = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[0.8, 0.2], [0.4, 0.6]]], dtype=torch.float64)  # (K, X, C)
    labels = torch.tensor([0, 1])
    mean = predictive(samples.log())
    torch.testing.assert_close(mean.exp(), samples.mean(0))
    found = calibration(mean, labels)
    assert (
        found["log_likelihood"] == pytest.approx((math.log(0.65) + math.log(0.35)) / 2) == log_likelihood(mean, labels)
    )
    assert found["accuracy"] == 0.5 == accuracy(mean, labels)
    assert found["ece"] == pytest.approx(0.15)  # one bin: both are sure of 0.65, one of two is right
