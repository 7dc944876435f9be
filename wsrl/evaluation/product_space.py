"""Adapters compared by their products ``B A``, which are the same in every gauge of the factors.

Letters: N fields, r rank, L numbers of all products of a field.
"""

from dataclasses import replace

import torch
from torch import Tensor

from wsrl.fields.gauge import factor_pairs
from wsrl.fields.layout import Layout
from wsrl.fields.representation import Representation

Weights = dict[str, Tensor]


def has_products(layout: Layout) -> bool:
    """Whether fields have factors, and so products."""
    return bool(factor_pairs(layout))


def products(layout: Layout, weights: Weights) -> Tensor:
    """The entries ``(N, L)`` of the products ``B A`` of all layers, in float64.

    Args:
        layout: Layout of adapters.
        weights: Weights ``(N, *shape)``.
    """
    pairs = factor_pairs(layout)
    return torch.cat([(weights[p.up.name].double() @ weights[p.down.name].double()).flatten(-2) for p in pairs], -1)


def product_cosine(layout: Layout, first: Weights, second: Weights) -> Tensor:
    """Cosine similarity ``(N,)`` of the products of pairs of fields; zero where a product is zero, as at most starts.

    Args:
        layout: Layout of adapters.
        first: Weights ``(N, *shape)``, or ``shape`` of one field.
        second: Weights of the partners, in the same order.
    """
    return torch.nn.functional.cosine_similarity(products(layout, first), products(layout, second), dim=-1)


def product_cosine_between(layout: Layout, weights: Weights) -> Tensor:
    """Mean cosine similarity ``(N,)`` of the products of every field to those of the others.

    Args:
        layout: Layout of adapters.
        weights: Weights ``(N, *shape)`` of two or more fields.
    """
    flat = torch.nn.functional.normalize(products(layout, weights), dim=-1)
    cosines = flat @ flat.mT
    return (cosines.sum(1) - cosines.diagonal()) / (len(flat) - 1)


def of_twice_the_rank(representation: Representation) -> Representation:
    """The representation of the fields that :func:`product_line` gives; which entries are frozen has no meaning there.

    Args:
        representation: That of the adapters.
    """
    config = replace(representation.config, rank=2 * representation.config.rank)
    return Representation.build(config, representation.base)


def product_line(layout: Layout, first: Weights, second: Weights) -> tuple[Weights, Weights]:
    """The same pairs of fields with twice the rank, so that the straight line between them is one of the products.

    Both have ``A = [A1; A2]``; of the first ``B = [B1, 0]``, of the second ``[0, B2]``. Between them
    ``B A = (1 - t) B1 A1 + t B2 A2``.

    Args:
        layout: Layout of adapters.
        first: Weights ``(N, *shape)``.
        second: Weights of the partners, in the same order.

    Returns:
        Weights of the first and of the second fields, with ``2 r`` components.
    """
    begin, end = dict(first), dict(second)
    for pair in factor_pairs(layout):
        down, up = pair.down.name, pair.up.name
        begin[down] = end[down] = torch.cat([first[down], second[down]], -2)  # (N, 2 r, in)
        begin[up] = torch.cat([first[up], torch.zeros_like(second[up])], -1)  # (N, out, 2 r)
        end[up] = torch.cat([torch.zeros_like(first[up]), second[up]], -1)  # (N, out, 2 r)
    return begin, end
