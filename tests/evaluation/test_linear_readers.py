"""Readers are scikit-learn's, whatever the numbers of items, features and classes, and the scale of the features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from wsrl.evaluation import linear_readers
from wsrl.evaluation.linear_readers import LOGISTIC, SQUARED_HINGE, Readable, principal_axes

SHAPES = [(120, 6, 3), (120, 6, 2), (40, 90, 3)]
"""Items, features, classes."""
# What the objective may still fall by moves scores by some hundredths; less of it is left where optima are compared.
STRICT, SOLVED, USUAL = 1e-15, 1e-3, 5e-2


def items(num=120, size=6, classes=3, seed=0, dtype=np.float64):
    """Features that go together, of scales far apart and with one that is always the same."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % classes + 4
    features = generator.normal(size=(num, size)) + 1.5 * np.eye(size)[labels - 4]
    mixed = features @ (np.eye(size) + 0.5 * generator.normal(size=(size, size)) / size**0.5)
    mixed = mixed * 10.0 ** generator.integers(-3, 4, size) + 7
    mixed[:, -1] = 3.0
    return mixed.astype(dtype), labels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 1.0])
def test_logistic_regression_is_scikit_learns(shape, strength, monkeypatch):
    monkeypatch.setattr(linear_readers, "TOLERANCE", STRICT)
    features, labels = items(*shape)
    (found,) = Readable(features, labels).readers(LOGISTIC, (strength,))
    standardised = StandardScaler().fit_transform(features)
    known = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10).fit(standardised, labels)
    scores = found.scores(features)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, known.predict_proba(standardised), atol=SOLVED)
    assert found.score(features, labels) == pytest.approx(known.score(standardised, labels), abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_the_machine_is_liblinears_beside_a_bias_without_a_penalty(shape, strength, monkeypatch):
    monkeypatch.setattr(linear_readers, "TOLERANCE", STRICT)
    features, labels = items(*shape)
    (found,) = Readable(features, labels).readers(SQUARED_HINGE, (strength,))
    # A large constant feature leaves liblinear's bias almost without a penalty.
    options = {"dual": False, "intercept_scaling": 100.0, "tol": 1e-8, "max_iter": 100_000}
    standardised = StandardScaler().fit_transform(features)
    known = LinearSVC(C=strength, **options).fit(standardised, labels).decision_function(standardised)
    scores = found.scores(features)
    np.testing.assert_allclose(scores if scores.shape[1] > 2 else scores[:, 1], known, atol=SOLVED)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", [LOGISTIC, SQUARED_HINGE])
def test_what_is_left_of_the_objective_hardly_moves_the_scores(loss, shape, monkeypatch):
    features, labels = items(*shape, dtype=np.float32)
    (usual,) = Readable(features, labels).readers(loss, (0.1,))
    monkeypatch.setattr(linear_readers, "TOLERANCE", STRICT)
    (strict,) = Readable(features.astype(float), labels).readers(loss, (0.1,))
    np.testing.assert_allclose(usual.scores(features), strict.scores(features), atol=USUAL)
    # From another reader on the way comes the same one; one of other classes is no start.
    few = Readable(features[: len(labels) // 2], labels[: len(labels) // 2]).readers(loss, (1.0,))[0]
    (again,) = Readable(features, labels).readers(loss, (0.1,), few)
    np.testing.assert_allclose(again.scores(features), strict.scores(features), atol=USUAL)
    alone, other = (Readable(features, labels + 1).readers(loss, (0.1,), near)[0] for near in (None, few))
    assert np.array_equal(other.weight, alone.weight)


@pytest.mark.parametrize("loss", [LOGISTIC, SQUARED_HINGE])
def test_a_weaker_penalty_leaves_larger_weights(loss):
    features, labels = items(dtype=np.float32)
    found = Readable(features, labels).readers(loss, (1e-4, 1e-2, 1.0))
    assert all(reader.weight.dtype == np.float32 for reader in found)
    sizes = [np.abs(reader.weight).sum() for reader in found]
    assert sizes[0] < 0.1 * sizes[1] < 0.1 * sizes[2]


@pytest.mark.parametrize(("num", "size"), [(50, 8), (8, 50)])
def test_axes_are_orthonormal_uncorrelated_and_hold_all_items(num, size):
    features = torch.randn(num, size, generator=torch.Generator().manual_seed(0)) * torch.arange(1, size + 1)
    axes = principal_axes(features)
    along = features @ axes
    identity = torch.eye(min(num, size))
    torch.testing.assert_close(axes.mT @ axes, identity, rtol=0, atol=1e-5)
    torch.testing.assert_close(along @ axes.mT, features, rtol=0, atol=1e-3)
    moments = along.mT @ along
    assert (moments - moments.diag().diag()).abs().max() < 1e-5 * moments.max()
