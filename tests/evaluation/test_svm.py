"""The support vector machine is scikit-learn's, beside a bias without a penalty."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from wsrl.evaluation.svm import LinearSvm


def items(num=120, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % 3 + 4
    return generator.normal(size=(num, 6)) + 1.5 * np.eye(6)[labels - 4], labels


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_weights_are_those_of_liblinear(strength):
    features, labels = items()
    found = LinearSvm(C=strength).fit(features, labels)
    # A large constant feature leaves liblinear's bias almost without a penalty.
    known = LinearSVC(C=strength, dual=False, intercept_scaling=100.0, tol=1e-8).fit(features, labels)
    np.testing.assert_allclose(found.coef_.T, known.coef_, atol=2e-3)
    np.testing.assert_allclose(found.intercept_, known.intercept_, atol=5e-3)
    assert (found.predict(features) == known.predict(features)).all() and found.score(features, labels) > 0.7


def test_strength_matters():
    features, labels = items()
    weak, strong = (np.abs(LinearSvm(C=value).fit(features, labels).coef_).sum() for value in (1.0, 1e-4))
    assert strong < 0.1 * weak
