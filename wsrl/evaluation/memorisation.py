"""Are generated fields new? Distances to the nearest training field, beside those of held-out fields, and baselines.

A model that copies has samples nearer to training fields than held-out fields are. Baselines that copy on purpose show
what a score is worth: training weights with noise, means of two, and a Gaussian with the covariance of the training
set.

Letters: N samples, M training fields, H held-out fields, W weights of a field in one vector, D numbers of a field in
the space where distances are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from wsrl.evaluation.picture_sets import CHUNK

CONSTANT = 1e-12
"""Coordinates with a smaller standard deviation over the training fields are frozen and left out."""
PERCENT = 0.01
"""Held-out fields of which so large a share is nearer to training mark what is suspiciously near."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training field of each field.

    Attributes:
        distances: Distance ``(N,)``, zero for a field that is not valid: the worst there is.
        indices: Index of the nearest among the training fields, ``(N,)``; -1 for a field that is not valid.
    """

    distances: Tensor
    indices: Tensor

    def closest(self, num: int) -> Tensor:
        """Indices of so many valid fields that are nearest to training, the nearest first."""
        valid = torch.where(self.indices >= 0, self.distances, torch.inf)
        return valid.argsort(stable=True)[: min(num, int((self.indices >= 0).sum()))]


def nearest_vectors(points: Tensor, references: Tensor, chunk: int = CHUNK) -> Nearest:
    """Nearest reference of each point by Euclidean distance, in blocks.

    The nearest one is nearest by products in the given precision; its distance is then taken directly, so that the
    distance of a copy is not lost to rounding. Points with a number that is not finite are not valid.

    Args:
        points: Points ``(N, D)``.
        references: References ``(M, D)``, all finite.
        chunk: Rows of a block.
    """
    centre = references.mean(dim=0)
    distances, indices = [], []
    for block in points.split(chunk):
        best, index = torch.full((len(block),), torch.inf, dtype=block.dtype), torch.zeros(len(block), dtype=torch.long)
        # |x - y|^2 / 2 = |y|^2 / 2 - x y + |x|^2 / 2, of which the last part does not matter for the nearest y.
        for start, part in zip(range(0, len(references), chunk), references.split(chunk)):
            moved = part - centre
            half = moved.square().sum(dim=1) / 2 - (block - centre) @ moved.T  # (N, M)
            smallest, nearest = half.min(dim=1)
            index = torch.where(smallest < best, nearest + start, index)
            best = torch.minimum(smallest, best)
        valid = block.isfinite().all(dim=1)
        exact = (block.double() - references[index].double()).norm(dim=1)
        distances.append(torch.where(valid, exact, 0.0))
        indices.append(torch.where(valid, index, -1))
    return Nearest(torch.cat(distances), torch.cat(indices))


@dataclass(frozen=True)
class VectorMemory:
    """The training fields in one space, and how far held-out fields are from them.

    Attributes:
        train: Training fields ``(M, D)``, scaled.
        scale: What each coordinate is divided by, ``(D,)``; zero leaves it out.
        heldout: Nearest training field of each held-out field.
    """

    train: Tensor
    scale: Tensor
    heldout: Nearest

    @classmethod
    def build(cls, train: Tensor, heldout: Tensor, *, standardise: bool) -> "VectorMemory":
        """Measure the held-out fields.

        Args:
            train: Training fields ``(M, D)``, all finite.
            heldout: Held-out fields ``(H, D)``.
            standardise: Divide coordinates by their standard deviation over the training fields; constant ones are
                left out.
        """
        scale = train.std(dim=0) if standardise else torch.ones(train.shape[1])
        scale = torch.where(scale > CONSTANT, scale, 0.0)
        scaled = _scaled(train, scale)
        return cls(scaled, scale, nearest_vectors(_scaled(heldout, scale), scaled))

    def nearest(self, samples: Tensor) -> Nearest:
        """Nearest training field of each sample ``(N, D)``; the unit is a root mean square over coordinates."""
        return nearest_vectors(_scaled(samples, self.scale), self.train)


def _scaled(fields: Tensor, scale: Tensor) -> Tensor:
    used = scale > 0
    return fields[:, used] / (scale[used] * max(int(used.sum()), 1) ** 0.5)


def memorisation_scores(samples: Nearest, heldout: Nearest) -> dict[str, float]:
    """How near samples are to training fields, beside held-out fields.

    Args:
        samples: Nearest training fields of the samples.
        heldout: Those of the held-out fields.

    Returns:
        ``nearest_ratio``, mean distance of the samples over that of the held-out fields: far below one says copies;
        ``share_nearer``, share of samples nearer to training than 99% of the held-out fields are: 0.01 is expected of
        new fields.
    """
    limit = torch.quantile(heldout.distances, PERCENT)
    return {
        "nearest_ratio": float(samples.distances.mean() / heldout.distances.mean()),
        "share_nearer": float((samples.distances < limit).double().mean()),
    }


def training_noise(train: Tensor, trainable: Tensor, num: int, level: float, generator: torch.Generator) -> Tensor:
    """Training fields with noise on each trainable weight.

    Args:
        train: Training fields ``(M, W)``.
        trainable: Which weights are trained, ``(W,)``; the others stay bit for bit.
        num: Fields to make, N.
        level: Standard deviation of the noise over that of the weight in the training fields; zero gives copies.
        generator: Source of the choice and the noise.

    Returns:
        Fields ``(N, W)``; a training field is used twice only where there are fewer than ``num``.
    """
    fields = train[_choose(len(train), num, generator)]
    noise = torch.randn(fields.shape, generator=generator) * train.std(dim=0) * level
    return torch.where(trainable, fields + noise, fields)


def mean_of_two(train: Tensor, trainable: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Means of two different training fields.

    Args:
        train: Training fields ``(M, W)``, M at least 2.
        trainable: Which weights are trained, ``(W,)``; the others stay those of the first field.
        num: Fields to make, N.
        generator: Source of the choice.

    Returns:
        Fields ``(N, W)``.
    """
    first = _choose(len(train), num, generator)
    second = (first + torch.randint(1, len(train), (num,), generator=generator)) % len(train)
    return torch.where(trainable, (train[first] + train[second]) / 2, train[first])


def train_gaussian(train: Tensor, trainable: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draws of the Gaussian with the mean and the covariance of the training fields, however few they are.

    A standard normal combination of the centred fields over ``sqrt(M - 1)`` has exactly their covariance, so no matrix
    of W by W is made.

    Args:
        train: Training fields ``(M, W)``, M at least 2.
        trainable: Which weights are trained, ``(W,)``; the others are those of the first field.
        num: Fields to make, N.
        generator: Source of the draws.

    Returns:
        Fields ``(N, W)``.
    """
    mean = train.mean(dim=0)
    mixing = torch.randn(num, len(train), generator=generator) / (len(train) - 1) ** 0.5
    return torch.where(trainable, mean + mixing @ (train - mean), train[0])


def _choose(num_train: int, num: int, generator: torch.Generator) -> Tensor:
    turns = [torch.randperm(num_train, generator=generator) for _ in range(-(-num // num_train))]
    return torch.cat(turns)[:num]


def noise_fd_at(ratio: float, curve: Sequence[tuple[float, float]]) -> float:
    """Fréchet distance that training fields with noise have at a given distance from training.

    Args:
        ratio: A model's ``nearest_ratio``.
        curve: ``(nearest_ratio, fd)`` of several levels of noise, that of none among them.

    Returns:
        Interpolated linearly between the levels on either side. Beyond the largest ratio it is that level's, which
        more noise would only make worse: the model is asked to beat no more than it.
    """
    points = sorted(curve)
    for (low, fd_low), (high, fd_high) in pairwise(points):
        if low <= ratio <= high and high > low:
            return fd_low + (fd_high - fd_low) * (ratio - low) / (high - low)
    return points[0][1] if ratio < points[0][0] else points[-1][1]


def better_baselines(
    model: tuple[float, float], curve: Sequence[tuple[float, float]], others: dict[str, tuple[float, float]]
) -> list[str]:
    """Baselines that a model does not beat in Fréchet distance at equal distance from training.

    Args:
        model: ``(nearest_ratio, fd)`` of the model.
        curve: The same of several levels of noise.
        others: The same of baselines without a level, by name: such a one is better where it is at least as far from
            training as the model and has no larger Fréchet distance.

    Returns:
        Names, ``noise`` for the curve; empty for a model that beats them all.
    """
    ratio, fd = model
    names = ["noise"] if not fd < noise_fd_at(ratio, curve) else []
    return names + [name for name, (far, other) in others.items() if far >= ratio and not fd < other]
