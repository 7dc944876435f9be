"""Every measure of pairs of fields that were fitted to the same signals: of weights, of factors and of products.

Letters: N pairs.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from wsrl.evaluation.linear_paths import path_between
from wsrl.evaluation.product_space import has_products, of_twice_the_rank, product_cosine, product_line
from wsrl.evaluation.structure import cosine_similarity, factor_overlap, mean_effective_rank
from wsrl.fields.representation import Representation
from wsrl.signals.signal import Signal
from wsrl.symmetry.matching.barriers import NUM_POINTS

CONNECTED = 1.0
"""Relative barrier below which a pair counts as connected."""

Weights = dict[str, Tensor]


def compare(
    representation: Representation,
    signals: Sequence[Signal],
    pair: tuple[Weights, Weights],
    starts: tuple[Weights, Weights],
    num_points: int = NUM_POINTS,
) -> dict[str, np.ndarray]:
    """Every measure of pairs of fields that were fitted to the same signals.

    Args:
        representation: What the weights are.
        signals: What both were fitted to, in order.
        pair: Weights ``(N, *shape)`` of the fields and of their partners.
        starts: Weights ``(N, *shape)`` or ``shape`` that either were fitted from.
        num_points: Points of the path between them.

    Returns:
        For each pair ``(N,)``: ``cosine``, and ``cosine_start``, that of the starts; ``overlap`` of the factors, with
        ``overlap_chance``; ``effective_rank``, mean of both; ``barrier`` of the loss, and ``barrier_relative``, over
        the mean loss of the ends, ``loss``; ``connected``, 1 where the relative barrier is below ``CONNECTED``: the
        loss rises by less than there is at the ends, some 3 dB; ``psnr``, mean of the ends, and ``psnr_path``, the
        least along the path, in dB. Of adapters also the measures of :func:`compare_products`. With two signals or
        more ``cosine_others`` and ``overlap_others``, between the fields of neighbouring signals: what is alike
        without the signal.
    """
    # The factors as subspaces, and the loss on the straight line between the fields.
    overlap, chance = factor_overlap(representation, pair, starts)
    path = path_between(representation, signals, *pair, num_points)
    loss = path.losses[:, [0, -1]].mean(1)
    relative = path.barriers / loss
    return {
        "cosine": cosine_similarity(representation, *pair).numpy(),
        "cosine_start": np.broadcast_to(cosine_similarity(representation, *starts).numpy(), loss.shape),
        "overlap": overlap.numpy(),
        "overlap_chance": np.full(len(loss), chance),
        "effective_rank": np.mean([mean_effective_rank(representation, weights).numpy() for weights in pair], axis=0),
        "barrier": path.barriers,
        "barrier_relative": relative,
        "loss": loss,
        "connected": (relative < CONNECTED).astype(float),
        "psnr": path.psnr[:, [0, -1]].mean(1),
        "psnr_path": path.psnr.min(1),
        **_of_others(representation, pair, starts),
        **compare_products(representation, signals, pair, num_points),
    }


def compare_products(
    representation: Representation, signals: Sequence[Signal], pair: tuple[Weights, Weights], num_points: int
) -> dict[str, np.ndarray]:
    """Measures of pairs of adapters that are the same in every gauge of their factors.

    Args:
        representation: What the weights are.
        signals: What both were fitted to, in order.
        pair: Weights ``(N, *shape)`` of the fields and of their partners.
        num_points: Points of the path between them.

    Returns:
        For each pair ``(N,)``: ``cosine_ba`` of the products ``B A``, ``cosine_ba_others`` between the fields of
        neighbouring signals, ``cosine_canonical`` of the factors in canonical gauge; ``barrier_ba``,
        ``barrier_ba_relative``, ``connected_ba`` and ``psnr_path_ba`` as in :func:`compare`, on the straight line
        between the products. Nothing of standalone networks. Of adapters, ``overlap`` is free of the gauge too.
    """
    layout = representation.layout
    if not has_products(layout):
        return {}
    path = path_between(of_twice_the_rank(representation), signals, *product_line(layout, *pair), num_points)
    relative = path.barriers / path.losses[:, [0, -1]].mean(1)
    canonical = [representation.canonical(weights) for weights in pair]
    measures = {
        "cosine_ba": product_cosine(layout, *pair).numpy(),
        "cosine_canonical": cosine_similarity(representation, *canonical).numpy(),
        "barrier_ba": path.barriers,
        "barrier_ba_relative": relative,
        "connected_ba": (relative < CONNECTED).astype(float),
        "psnr_path_ba": path.psnr.min(1),
    }
    if len(signals) > 1:
        measures["cosine_ba_others"] = product_cosine(layout, pair[0], _neighbours(pair[1])).numpy()
    return measures


def _of_others(
    representation: Representation, pair: tuple[Weights, Weights], starts: tuple[Weights, Weights]
) -> dict[str, np.ndarray]:
    """Cosine and overlap between the first fields and the partners of neighbouring signals; of one signal nothing."""
    num = len(next(iter(pair[0].values())))
    if num < 2:
        return {}
    others = pair[0], _neighbours(pair[1])
    shapes = {spec.name: spec.shape for spec in representation.layout}
    own = any(start.ndim > len(shapes[name]) for name, start in starts[1].items())
    overlap, _ = factor_overlap(representation, others, (starts[0], _neighbours(starts[1]) if own else starts[1]))
    return {
        "cosine_others": cosine_similarity(representation, *others).numpy(),
        "overlap_others": overlap.numpy(),
    }


def _neighbours(weights: Weights) -> Weights:
    """Weights ``(N, *shape)`` in another order: each field in the place of the one before it."""
    return {name: tensor.roll(-1, 0) for name, tensor in weights.items()}
