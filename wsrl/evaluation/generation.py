"""What is known of any set of fields, be they samples, held-out fields or baselines, by the same lines.

How near they are to training fields, in weights and as signals, and which classes a classifier sees in them. A field
whose weights or whose signal are not finite counts with the worst there is: a grey picture, the largest distance of
shapes, a copy of a training field.

Letters: N fields, M training fields, H held-out fields, C channels, H x W sizes of pictures.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.memorisation import Nearest, VectorMemory, memorisation_scores
from wsrl.evaluation.picture_features import PictureFeatures
from wsrl.fields.layout import Layout
from wsrl.options import at_least, check, one_of, option

PICTURES_COMPARED, SHAPES_COMPARED = 10_000, 200


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How sampled fields are scored.

    Attributes:
        num: Fields to sample, and of each baseline.
        steps: Denoising steps.
        limit: Most training and most held-out fields to compare with.
        references: Most real pictures or shapes; None for ``PICTURES_COMPARED`` or ``SHAPES_COMPARED``.
        features: Folder of classifiers or of one of them, or ``timm:NAME``; None for the cache.
        features_from: ``source`` trains the classifier on all training pictures of the source, ``store`` on those of
            the store's fields.
        baselines: Score noise on training fields, means of two and a Gaussian as well.
        resolution: Cells of a side of the grid that shapes are meshed on.
        data: What the store was built from; None where the manifest knows it.
        seed: Seed of choices, samples and baselines.

    Raises:
        UserError: An option is out of range.
    """

    num: int = option(256, at_least(1))
    steps: int = option(50, at_least(1))
    limit: int = option(60_000, at_least(1))
    references: int | None = option(None, at_least(1))
    features: str | None = None
    features_from: str = option("source", one_of("source", "store"))
    baselines: bool = False
    resolution: int = option(64, at_least(1))
    data: str | None = None
    seed: int = 0

    def __post_init__(self):
        check(self)


@dataclass(frozen=True, kw_only=True)
class KnownFields:
    """The fields of a store that others are compared with.

    Attributes:
        layout: Layout of the fields.
        decoder: What renders them.
        train: Training fields ``(M, *shape)``.
        heldout: Fields that a model has not seen ``(H, *shape)``.

    Raises:
        UserError: There are too few.
    """

    layout: Layout
    decoder: FieldDecoder
    train: dict[str, Tensor]
    heldout: dict[str, Tensor]

    def __post_init__(self):
        check_numbers(*self.sizes, "fields")

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of training and of held-out fields."""
        return len(next(iter(self.train.values()))), len(next(iter(self.heldout.values())))

    def weight_memory(self) -> VectorMemory:
        """The training fields by weights; frozen weights do not vary and are left out."""
        return VectorMemory.build(*map(self.layout.flatten, (self.train, self.heldout)), standardise=True)


@dataclass(frozen=True)
class Judged:
    """What is known of a set of fields.

    Attributes:
        metrics: The scores.
        in_weights: Nearest training field of each by weights.
        in_signals: Nearest training field of each by its picture or surface.
        signals: Pictures ``(N, C, H, W)`` or surface points ``(N, P, 3)``.
    """

    metrics: dict[str, float]
    in_weights: Nearest
    in_signals: Nearest
    signals: Tensor | np.ndarray


def judged(
    metrics: dict[str, float],
    in_weights: tuple[Nearest, Nearest],
    in_signals: tuple[Nearest, Nearest],
    signals: Tensor | np.ndarray,
) -> Judged:
    """Add the scores of memorisation; each pair is that of the samples and that of the held-out fields."""
    by_signal = memorisation_scores(*in_signals)
    metrics = metrics | memorisation_scores(*in_weights) | {f"{name}_signal": by_signal[name] for name in by_signal}
    return Judged(metrics, in_weights[0], in_signals[0], signals)


def class_scores(features: PictureFeatures, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Which classes a classifier sees in pictures ``(N, C, H, W)``, and how sure it is of them.

    Args:
        features: A classifier.
        samples: Pictures of samples.
        real: Real pictures that it has not been trained on.

    Returns:
        ``num_classes``, ``num_classes_seen`` among the samples' most probable ones, ``class_entropy`` of those over
        that of equal shares, ``top_probability`` of the samples beside ``top_probability_real``.
    """
    probabilities = features.probabilities(samples)
    # Entropy of the classes that are seen, over that of equal shares of all.
    counts = torch.bincount(probabilities.argmax(dim=1), minlength=len(features.label_names))
    shares = counts[counts > 0] / counts.sum()
    return {
        "num_classes": len(counts),
        "num_classes_seen": int((counts > 0).sum()),
        "class_entropy": float(-(shares * shares.log()).sum() / np.log(max(len(counts), 2))),
        "top_probability": float(probabilities.amax(dim=1).mean()),
        "top_probability_real": float(features.probabilities(real).amax(dim=1).mean()),
    }


def check_numbers(first: int, second: int, what: str) -> None:
    """Refuse sets that are too small to be compared.

    Args:
        first: Members of one set, such as the training fields.
        second: Members of the other.
        what: What they are, for the message.

    Raises:
        UserError: The first has fewer than two, or the second none.
    """
    if min(first, second) < 1 or first < 2:
        numbers = f"{first}" if first == second else f"{first} and {second}"
        raise UserError(
            f"{numbers} {what} are too few to compare samples with",
            allowed="two or more of training, one or more held out",
            do="build a store of more signals, of a train and a test split where the source has them",
        )
