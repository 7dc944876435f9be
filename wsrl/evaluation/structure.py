"""How structured a space of weights is: what two fits of one signal, from two starts, have in common.

Letters: N fields, D coordinates of a space, r dimensions of a subspace of it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from wsrl.fields.representation import LayerParts, Representation

LEVEL, NUM_DRAWS = 0.95, 2000

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
    # Directions below the rounding of the largest singular value are no dimensions.
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
    # exp(H) of the shares p_i = s_i / sum s.
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
    # Means of signals that are drawn again and again with putting back.
    drawn = np.random.default_rng(seed).integers(len(values), size=(NUM_DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def banded(measures: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, float]:
    """Means of measures over signals, each with the confidence band of :func:`with_band`; a chance level has none.

    Args:
        measures: One number per signal for each measure.
        seed: Seed of the draws.
    """
    bands = {}
    for name, values in measures.items():
        band = with_band(name, values, seed)
        bands |= {name: band[name]} if name.endswith("_chance") else band
    return bands
