"""How good predicted class probabilities are: log-likelihood, accuracy and calibration error.

Letters: K samples of the weights, X examples, C classes.
"""

import math

import torch
from torch import Tensor

from wsrl.options import at_least, check_values


def predictive(log_probabilities: Tensor) -> Tensor:
    """Log of the mean of probabilities over samples of the weights, ``(K, X, C) -> (X, C)``."""
    return torch.logsumexp(log_probabilities, 0) - math.log(len(log_probabilities))


def log_likelihood(log_probabilities: Tensor, labels: Tensor) -> float:
    """Mean log-probability of the true classes, in nats.

    Args:
        log_probabilities: Predictions ``(X, C)``.
        labels: Class indices ``(X,)``.
    """
    return float(log_probabilities.gather(1, labels[:, None]).double().mean())


def accuracy(log_probabilities: Tensor, labels: Tensor) -> float:
    """Share of examples whose most probable class is the true one.

    Args:
        log_probabilities: Predictions ``(X, C)``.
        labels: Class indices ``(X,)``.
    """
    return float((log_probabilities.argmax(1) == labels).double().mean())


def expected_calibration_error(log_probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by the share of examples.

    Args:
        log_probabilities: Predictions ``(X, C)``.
        labels: Class indices ``(X,)``.
        num_bins: Bins of equal width over [0, 1], each closed above.

    Raises:
        UserError: There is no bin.

    Source: Guo et al., ICML 2017, equation 3.
    """
    check_values({"num_bins": num_bins}, num_bins=at_least(1))
    confidences, guesses = log_probabilities.double().exp().max(1)
    gaps = (guesses == labels).double() - confidences
    bins = (confidences * num_bins).ceil().long().clamp(1, num_bins) - 1
    return float(torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, gaps).abs().sum() / len(labels))


def calibration(log_probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """``log_likelihood`` (nats), ``accuracy`` and ``ece`` of predictions.

    Args:
        log_probabilities: Predictions ``(X, C)``.
        labels: Class indices ``(X,)``.
    """
    return {
        "log_likelihood": log_likelihood(log_probabilities, labels),
        "accuracy": accuracy(log_probabilities, labels),
        "ece": expected_calibration_error(log_probabilities, labels),
    }
