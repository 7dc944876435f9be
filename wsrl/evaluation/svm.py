"""A linear support vector machine of many classes, each against the rest, with squared hinge losses.

The optimum is that of scikit-learn's ``LinearSVC`` but for the bias, which is not penalised here. L-BFGS on all classes
at once takes seconds where liblinear takes minutes on thousands of items with thousands of features.

Letters: N items, F features, K classes.
"""

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin

MAX_STEPS = 500
TOLERANCE = 1e-4


class LinearSvm(ClassifierMixin, BaseEstimator):
    """An estimator of scikit-learn: ``|W|^2 / 2 + C * sum of the squared hinge losses`` is least.

    Args:
        C: Inverse strength of the penalty.
    """

    def __init__(self, C: float = 1.0):
        self.C = C

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "LinearSvm":
        """Find the weights.

        Args:
            features: Standardised features ``(N, F)``.
            labels: Class indices ``(N,)``, of two classes or more.
        """
        self.classes_, codes = np.unique(labels, return_inverse=True)
        signs = 2 * np.eye(len(self.classes_), dtype=features.dtype)[codes] - 1  # (N, K)
        penalty, shape = 1 / (self.C * len(features)), (features.shape[1] + 1, len(self.classes_))

        def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = flat.reshape(shape)
            weight, bias = parameters[:-1].astype(features.dtype), parameters[-1].astype(features.dtype)
            # Squared hinge loss max(0, 1 - y (x W + b))^2, and its slope by the scores.
            margin = np.maximum(1 - signs * (features @ weight + bias), 0)
            of_scores = (-2 / len(features)) * signs * margin
            slope = features.T @ of_scores + penalty * weight
            value = np.sum(margin**2, dtype=np.float64) / len(features) + 0.5 * penalty * np.sum(parameters[:-1] ** 2)
            return float(value), np.concatenate([slope, of_scores.sum(axis=0, keepdims=True)]).ravel().astype(float)

        options = {"maxiter": MAX_STEPS, "gtol": TOLERANCE, "ftol": 1e-9}
        solution = minimize(value_and_slope, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        self.coef_, self.intercept_ = solution.x.reshape(shape)[:-1], solution.x.reshape(shape)[-1]
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """Scores ``(N, K)``: the largest wins."""
        return features @ self.coef_ + self.intercept_

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class indices ``(N,)``."""
        return self.classes_[np.argmax(self.decision_function(features), axis=1)]
