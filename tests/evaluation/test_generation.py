"""Scores of samples: classes seen, and the distance to the training fields."""

import numpy as np
import pytest
import torch

from wsrl.evaluation.generation import evaluate_generation, nearest_distances, nearest_training_distance


def pictures(num, seed, classes=(0, 1, 2)):
    generator = np.random.default_rng(seed)
    labels = np.array([classes[i % len(classes)] for i in range(num)])
    return (np.eye(3, 9)[labels] + 0.1 * generator.normal(size=(num, 9))).astype(np.float32), labels


def judge(samples):
    real, heldout = pictures(150, 0), pictures(60, 1)
    return evaluate_generation(samples, *real, *heldout, num_classes=3, seed=0)


def test_good_samples_look_like_real_ones():
    scores = judge(pictures(60, 2)[0])
    assert scores["num_classes_seen"] == 3 and scores["classifier_accuracy"] > 0.9
    assert scores["top_probability"] == pytest.approx(scores["top_probability_real"], abs=0.05)
    assert scores["class_entropy"] == pytest.approx(1.0, abs=0.02)


def test_missing_classes_and_noise_are_noticed():
    assert judge(pictures(60, 2, classes=(0,))[0])["num_classes_seen"] == 1
    grey = np.full((10, 9), 1 / 9, dtype=np.float32)
    assert judge(grey)["top_probability"] < judge(pictures(60, 2)[0])["top_probability"]


def test_blocks_do_not_change_distances():
    generator = torch.Generator().manual_seed(0)
    points, references = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (7, 11))
    brute = (points[:, None] - references[None]).norm(dim=-1).amin(dim=1)
    assert torch.allclose(nearest_distances(points, references, chunk=3), brute, atol=1e-7)


def test_copies_have_a_small_ratio_and_new_fields_do_not():
    generator = torch.Generator().manual_seed(0)
    train, heldout, fresh = (torch.randn(n, 6, generator=generator) * 5 for n in (200, 50, 50))
    train[:, 2] = heldout[:, 2] = fresh[:, 2] = 3.0  # a frozen entry
    copies = nearest_training_distance(train[:20] + 1e-3, train, heldout)
    assert copies["nearest_train_ratio"] < 0.01
    new = nearest_training_distance(fresh, train, heldout)
    assert new["nearest_train_ratio"] == pytest.approx(1.0, abs=0.2)
