"""Scores of generated fields: do their pictures look like the classes, and are their weights new?

Letters: N items, F features of a picture, W weights of a field in one vector.
"""

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor

HIDDEN = 128
CHUNK = 1024


def evaluate_generation(
    sample_images: np.ndarray,
    real_images: np.ndarray,
    real_labels: np.ndarray,
    heldout_images: np.ndarray,
    heldout_labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
) -> dict[str, float]:
    """Judge pictures of sampled fields by a pixel classifier that was trained on real ones.

    The classifier is a perceptron with one hidden layer on the raw pixels. It never sees the held-out pictures, whose
    mean top probability is what the samples' one is to be compared with.

    Args:
        sample_images: Pictures of sampled fields ``(N, F)``.
        real_images: Real pictures to train on ``(N, F)``.
        real_labels: Their class indices.
        heldout_images: Real pictures that are not trained on ``(N, F)``.
        heldout_labels: Their class indices.
        num_classes: Number of classes there are.
        seed: Seed of the classifier.

    Returns:
        ``num_samples``; ``num_classes_seen`` among the samples' most probable classes, beside ``num_classes``;
        ``top_probability`` of the samples and ``top_probability_real`` of the held-out pictures;
        ``classifier_accuracy`` on the held-out pictures; ``class_entropy`` of the samples' classes over that of equal
        shares.
    """
    classifier = MLPClassifier(hidden_layer_sizes=(HIDDEN,), alpha=1e-2, max_iter=1000, random_state=seed).fit(
        real_images, real_labels
    )
    top_sample = classifier.predict_proba(sample_images)
    counts = np.bincount(classifier.classes_[top_sample.argmax(axis=1)], minlength=num_classes)
    shares = counts[counts > 0] / counts.sum()
    return {
        "num_samples": len(sample_images),
        "num_classes": num_classes,
        "num_classes_seen": int((counts > 0).sum()),
        "class_entropy": float(-(shares * np.log(shares)).sum() / np.log(max(num_classes, 2))),
        "top_probability": float(top_sample.max(axis=1).mean()),
        "top_probability_real": float(classifier.predict_proba(heldout_images).max(axis=1).mean()),
        "classifier_accuracy": float(classifier.score(heldout_images, heldout_labels)),
    }


def nearest_training_distance(samples: Tensor, train: Tensor, heldout: Tensor) -> dict[str, float]:
    """How far samples lie from the training fields, beside how far held-out fields lie from them.

    Coordinates are divided by their deviation over the training fields; constant ones (frozen entries) are left out.
    A ratio far below one says that the samples are copies of training fields. Distances are taken in blocks, so memory
    does not grow with the product of the counts.

    Args:
        samples: Weights of sampled fields ``(N, W)``.
        train: Weights of training fields ``(N, W)``.
        heldout: Weights of fields that the model has not seen ``(N, W)``.

    Returns:
        ``nearest_train`` and ``nearest_train_min``, mean and smallest distance from a sample to its nearest training
        field; ``nearest_train_heldout``, the same mean for held-out fields; ``nearest_train_ratio``, the first over
        the last. Units: root mean square over coordinates, in training deviations.
    """
    deviation = train.double().std(dim=0)
    used = deviation > 1e-12
    scaled = [(part[:, used].double() / deviation[used]).contiguous() for part in (samples, train, heldout)]
    unit = max(int(used.sum()), 1) ** 0.5
    near, near_heldout = (nearest_distances(part, scaled[1]) / unit for part in (scaled[0], scaled[2]))
    return {
        "nearest_train": float(near.mean()),
        "nearest_train_min": float(near.min()),
        "nearest_train_heldout": float(near_heldout.mean()),
        "nearest_train_ratio": float(near.mean() / near_heldout.mean()),
    }


def nearest_distances(points: Tensor, references: Tensor, chunk: int = CHUNK) -> Tensor:
    """Euclidean distance of each point to its nearest reference, in blocks of ``chunk`` by ``chunk``.

    Args:
        points: Points ``(N, W)``.
        references: References ``(M, W)``.
        chunk: Rows of a block.

    Returns:
        Distances ``(N,)``.
    """
    blocks = []
    for block in points.split(chunk):
        nearest = torch.stack([torch.cdist(block, part).amin(dim=1) for part in references.split(chunk)])
        blocks.append(nearest.amin(dim=0))
    return torch.cat(blocks)
