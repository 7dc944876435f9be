"""How structured a space of weights is: what two fits of one signal, from two starts, have in common.

Letters: N fields, D coordinates of a space, r dimensions of a subspace of it, T points of a path.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsrl.fields.representation import LayerParts, Representation
from wsrl.fitting.loss import loss_of
from wsrl.signals.fidelity import in_quantity, psnr
from wsrl.signals.signal import Signal
from wsrl.symmetry.matching.barriers import NUM_POINTS, barrier, path_losses

LEVEL, NUM_DRAWS = 0.95, 2000
FIELDS_AT_ONCE = 16

Weights = dict[str, Tensor]


def cosine_similarity(representation: Representation, first: Weights, second: Weights) -> Tensor:
    """Cosine similarity of the trainable weights of pairs of fields, all tensors flattened into one vector.

    Args:
        representation: What the weights are.
        first: Weights ``(N, *shape)``, or ``shape`` of one field.
        second: Weights of the partners, in the same order.

    Returns:
        Cosines ``(N,)``, or a single one.
    """
    trainable = representation.layout.trainable()
    flat = [representation.layout.flatten(weights)[..., trainable].double() for weights in (first, second)]
    return torch.nn.functional.cosine_similarity(*flat, dim=-1)


def cosine_between(representation: Representation, weights: Weights) -> Tensor:
    """Mean cosine similarity of every field to the others, over the trainable weights.

    Args:
        representation: What the weights are.
        weights: Weights ``(N, *shape)`` of two or more fields, as a rule of different signals.

    Returns:
        Means ``(N,)``.
    """
    flat = representation.layout.flatten(weights)[..., representation.layout.trainable()].double()
    cosines = torch.nn.functional.normalize(flat, dim=-1) @ torch.nn.functional.normalize(flat, dim=-1).mT
    return (cosines.sum(1) - cosines.diagonal()) / (len(flat) - 1)


def subspace_overlap(first: Tensor, second: Tensor) -> Tensor:
    """How far the column spaces of matrices coincide: the mean squared cosine of their principal angles.

    Two random subspaces of ``r`` dimensions in ``D`` have ``r / D`` on average, equal ones 1. Where the dimensions
    differ, the larger one counts.

    Args:
        first: Matrices ``(N, D, r)``; their rank may be less than r.
        second: Matrices ``(N, D, r')``.

    Returns:
        Overlaps ``(N,)`` in [0, 1]; nan where both matrices are zero.

    Source: Björck & Golub, Numerical methods for computing angles between linear subspaces, 1973.
    """
    (left, size), (right, other) = _orthonormal(first), _orthonormal(second)
    shared = (left.mT @ right).square().sum((-2, -1))
    return shared / torch.maximum(size, other)


def _orthonormal(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Bases ``(N, D, r)`` of column spaces, with zeros in place of missing dimensions, and the dimensions ``(N,)``."""
    vectors, values, _ = torch.linalg.svd(matrices.double(), full_matrices=False)
    least = values[..., :1] * max(matrices.shape[-2:]) * torch.finfo(matrices.dtype).eps
    present = (values > least).double()
    return vectors * present.unsqueeze(-2), present.sum(-1)


def effective_rank(matrices: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values over their sum: 1 for rank one, D for an identity.

    Args:
        matrices: Matrices ``(N, out, in)``.

    Returns:
        Effective ranks ``(N,)``; nan for matrices of zeros.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(matrices.double())
    shares = values / values.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()


def mean_effective_rank(representation: Representation, weights: Weights) -> Tensor:
    """Effective rank of the products ``B A`` of adapters or of the weights of standalone networks, mean over layers.

    Args:
        representation: What the weights are.
        weights: Weights ``(N, *shape)``.

    Returns:
        Means ``(N,)``.
    """
    matrices = [
        weights[part.weight] if part.down is None else weights[part.up] @ weights[part.down]
        for part in own_parts(representation)
    ]
    return torch.stack([effective_rank(matrix) for matrix in matrices]).mean(0)


def own_parts(representation: Representation) -> list[LayerParts]:
    """The layers with numbers of the field itself."""
    return [part for part in representation.parts() if part.down is not None or isinstance(part.weight, str)]


def factor_overlap(
    representation: Representation, pair: tuple[Weights, Weights], starts: tuple[Weights, Weights]
) -> tuple[Tensor, float]:
    """Subspace overlap of the factors of pairs of fields, and what random subspaces would have; means over layers.

    Of an adapter the column spaces of ``B`` and the row spaces of ``A`` are compared (its frozen entries, which all
    fields share, taken as zero). A standalone network has no factors: the leading left and right singular subspaces of
    the change of each weight since the field's own start stand for them, of as many dimensions as ``config.rank``.
    Sides that such a subspace fills are left out.

    Args:
        representation: What the weights are.
        pair: Weights ``(N, *shape)`` of the fields and of their partners.
        starts: Weights ``(N, *shape)`` or ``shape`` that either were fitted from.

    Returns:
        Overlaps ``(N,)`` in [0, 1], and their chance level.
    """
    spaces = [list(_spaces(representation, *fits)) for fits in zip(pair, starts)]  # (N, D, r) each, of both fits
    overlaps = [subspace_overlap(*both) for both in zip(*spaces)]
    chance = [space.shape[-1] / space.shape[-2] for space in spaces[0]]
    return torch.stack(overlaps).mean(0), float(np.mean(chance))


def _spaces(representation: Representation, weights: Weights, start: Weights) -> Iterator[Tensor]:
    """Matrices ``(N, D, r)`` whose column spaces are compared, ``r < D``."""
    trainable = {spec.name: spec.trainable() for spec in representation.layout}
    for part in own_parts(representation):
        if part.down is not None:
            sides = [weights[part.up], (weights[part.down] * trainable[part.down]).mT]
        else:
            change = (weights[part.weight] - start[part.weight]).double()
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            rank = min(representation.config.rank, *change.shape[-2:])
            sides = [(side * values.unsqueeze(-2))[..., :rank] for side in (left, right.mT)]
        yield from (side for side in sides if side.shape[-1] < side.shape[-2])


@dataclass(frozen=True)
class LinearPath:
    """What lies on the straight lines between pairs of fields.

    Attributes:
        losses: Reconstruction loss ``(N, T)``, from the first field to the second.
        psnr: PSNR ``(N, T)`` in dB of the same fields.
    """

    losses: np.ndarray
    psnr: np.ndarray

    @property
    def barriers(self) -> np.ndarray:
        """Largest excess ``(N,)`` of the loss over the line between those of the ends."""
        return np.array([barrier(losses) for losses in self.losses])


@torch.no_grad()
def path_between(
    representation: Representation,
    signals: Sequence[Signal],
    first: Weights,
    second: Weights,
    num_points: int = NUM_POINTS,
) -> LinearPath:
    """Reconstruction loss along the straight lines between pairs of fields, in the space of the weights.

    Args:
        representation: What the weights are, on the CPU.
        signals: What either field of a pair was fitted to, in order; of one quantity, with as many points each.
        first: Weights ``(N, *shape)``.
        second: Weights of the partners.
        num_points: Points of the path, both ends included.

    Source: linear mode connectivity, Frankle et al., ICML 2020; ``max_a L((1-a) t1 + a t2) - ((1-a) L(t1) + a L(t2))``.
    """
    scores = []
    for begin in range(0, len(signals), FIELDS_AT_ONCE):
        rows = slice(begin, begin + FIELDS_AT_ONCE)
        ends = [{name: tensor[rows] for name, tensor in weights.items()} for weights in (first, second)]
        scores.append(path_losses(_scores(representation, signals[rows]), *ends, num_points))
    losses, ratios = np.concatenate(scores, -1).astype(np.float64).transpose(1, 2, 0)  # (2, N, T)
    return LinearPath(losses, ratios)


def _scores(representation: Representation, signals: Sequence[Signal]) -> Callable[[Weights], Tensor]:
    """A function from weights ``(N, *shape)`` to the losses and the PSNR ``(2, N)`` of the fields."""
    shared = all(signal.coords is signals[0].coords for signal in signals)
    coords = signals[0].coords if shared else torch.stack([signal.coords for signal in signals])
    features, targets = representation.encoding(coords), torch.stack([signal.values for signal in signals])
    form = signals[0].form
    weighed = 1.0 if signals[0].weights is None else torch.stack([signal.weights for signal in signals]).unsqueeze(-1)

    def scores(weights: Weights) -> Tensor:
        values = representation.evaluate_encoded(weights, features).mT
        losses = (loss_of(form)(values, targets) * weighed).mean((1, 2))
        return torch.stack([losses, psnr(in_quantity(values, form), targets, form.value_range)])

    return scores


def with_band(name: str, values: Sequence[float] | np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean over signals and its confidence band by the percentile bootstrap, under ``name``, ``_low`` and ``_high``.

    Args:
        name: Key of the mean.
        values: One number per signal.
        seed: Seed of the draws.

    Source: Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.ptp(values) == 0:  # nothing varies: no rounding of means in the ends
        return {name: float(values[0]), f"{name}_low": float(values[0]), f"{name}_high": float(values[0])}
    drawn = np.random.default_rng(seed).integers(len(values), size=(NUM_DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def banded(measures: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, float]:
    """Means of measures over signals, each with the confidence band of :func:`with_band`; a chance level has none.

    Args:
        measures: One number per signal for each measure.
        seed: Seed of the draws.
    """
    found = {}
    for name, values in measures.items():
        band = with_band(name, values, seed)
        found |= {name: band[name]} if name.endswith("_chance") else band
    return found
