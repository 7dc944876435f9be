"""Linear readers of many classes: multinomial logistic regression, and support vector machines of one against the rest.

Their optima are those of scikit-learn's ``LogisticRegression`` and, but for the bias, which is not penalised here,
``LinearSVC``. They are solved in the principal axes of the features, along which the second derivatives are known to a
factor: scaled by it the problem takes some tens of steps where the features themselves take hundreds.

Letters: N items, F features, R principal axes, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler
from torch import Tensor

TOLERANCE = 1e-7
"""A step that lowers the objective by a smaller share of it is the last one."""
MAX_STEPS = 500


@dataclass(frozen=True)
class Loss:
    """A loss of scores.

    Attributes:
        of_scores: From scores ``(K, N)`` and ``(K, N)`` numbers, 1 at the right class and else 0, to the sum of
            the loss over items and classes, in float64, and its slope by the scores.
        curvature: About the mean second derivative of the loss of an item in one score. It sets the pace alone.
    """

    of_scores: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    curvature: float


def _cross_entropy(scores: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    logs = torch.log_softmax(scores, 0)  # (K, N)
    return -(logs * right).sum(dtype=torch.float64), logs.exp_().sub_(right)


def _squared_hinge(scores: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    signs = 2 * right - 1
    margin = (1 - signs * scores).relu_()  # (K, N)
    return margin.square().sum(dtype=torch.float64), margin.mul_(-2 * signs)


LOGISTIC = Loss(_cross_entropy, curvature=0.1)
SQUARED_HINGE = Loss(_squared_hinge, curvature=1.5)


@dataclass(frozen=True)
class LinearReader:
    """A fitted reader.

    Attributes:
        classes: Class indices ``(K,)``.
        weight: Weights ``(F, K)`` of standardised features.
        bias: Biases ``(K,)``.
        scaler: Standardises features.
    """

    classes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    scaler: StandardScaler

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Scores ``(N, K)`` of features ``(N, F)`` as they are: the largest wins."""
        return self.scaler.transform(features) @ self.weight + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class indices ``(N,)``."""
        return self.classes[np.argmax(self.scores(features), axis=1)]

    def score(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Share of the items that are classified rightly."""
        return float(np.mean(self.predict(features) == labels))


class Readable:
    """Items in the principal axes of their standardised features: readers of any loss and strength are fitted on them.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``, of two classes or more.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray):
        self.classes, codes = np.unique(labels, return_inverse=True)
        self.scaler = StandardScaler()
        standardised = torch.from_numpy(self.scaler.fit_transform(features))
        self._right = torch.eye(len(self.classes), dtype=standardised.dtype)[:, codes]  # (K, N)
        self._axes = principal_axes(standardised)  # (F, R)
        # A last feature that is always one stands for the bias.
        ones = torch.ones(len(standardised), 1, dtype=standardised.dtype)
        self._items = torch.cat([standardised @ self._axes, ones], 1)  # (N, R + 1)
        self._variances = self._items.square().mean(0)  # (R + 1,)

    def readers(self, loss: Loss, strengths: Sequence[float], near: LinearReader | None = None) -> list[LinearReader]:
        """Readers for which ``|W|^2 / 2 + C * loss`` is least, the loss summed over items.

        Args:
            loss: ``LOGISTIC`` or ``SQUARED_HINGE``.
            strengths: Values of ``C``, one for each reader.
            near: A reader to start from, such as one of fewer items of the same classes; None for zeros.
        """
        return [self._solved(loss, strength, near) for strength in strengths]

    def _solved(self, loss: Loss, strength: float, near: LinearReader | None) -> LinearReader:
        num, shape = len(self._items), (len(self.classes), self._items.shape[1])
        # Scikit-learn's regression of two classes has one weight for the difference of the scores: half the penalty.
        halved = 2 if loss is LOGISTIC and len(self.classes) == 2 else 1
        penalties = torch.full(shape[1:], halved / (strength * num), dtype=self._items.dtype)  # (R + 1,)
        penalties[-1] = 0
        scales = (loss.curvature * self._variances + penalties).rsqrt()  # (R + 1,)

        def function(point: np.ndarray) -> tuple[float, np.ndarray]:
            # Means over items: the weights (K, R + 1), their scores, and the slope by the scaled variables.
            weights = torch.from_numpy(point).to(scales).unflatten(0, shape) * scales
            value, slopes = loss.of_scores(weights @ self._items.mT, self._right)
            pulled = penalties * weights
            value = value / num + 0.5 * (pulled * weights).sum(dtype=torch.float64)
            return value.item(), ((slopes @ self._items / num + pulled) * scales).flatten().double().numpy()

        start = (self._along_axes(near, shape) / scales).flatten().double().numpy()
        options = {"maxiter": MAX_STEPS, "ftol": TOLERANCE, "gtol": 0.0}
        point = minimize(function, start, jac=True, method="L-BFGS-B", options=options).x
        return self._reader(torch.from_numpy(point).to(scales).unflatten(0, shape) * scales)

    def _along_axes(self, reader: LinearReader | None, shape: tuple[int, int]) -> Tensor:
        """Weights ``(K, R + 1)`` of a reader along the axes; zeros where it is None or has other classes."""
        if reader is None or not np.array_equal(reader.classes, self.classes):
            return torch.zeros(shape, dtype=self._items.dtype)
        weight, bias = torch.from_numpy(reader.weight), torch.from_numpy(reader.bias)
        return torch.cat([weight.mT @ self._axes, bias[:, None]], 1)

    def _reader(self, weights: Tensor) -> LinearReader:
        """A reader by its weights ``(K, R + 1)`` along the axes."""
        weight, bias = self._axes @ weights[:, :-1].mT, weights[:, -1]
        return LinearReader(self.classes, weight.numpy(), bias.numpy(), self.scaler)


def principal_axes(features: Tensor) -> Tensor:
    """Orthonormal axes ``(F, R)`` of all that items have, along which they are hardly correlated; R is at most N and F.

    Args:
        features: Features ``(N, F)`` about their mean.
    """
    if len(features) >= features.shape[1]:
        return torch.linalg.eigh(features.mT @ features).eigenvectors
    # Fewer items than features: the axes lie in the span of the items.
    basis, inside = torch.linalg.qr(features.mT)  # (F, N), (N, N)
    return basis @ torch.linalg.eigh(inside @ inside.mT).eigenvectors
