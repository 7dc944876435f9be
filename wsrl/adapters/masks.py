"""Asymmetric masks: a fixed random set of entries of ``A`` is frozen, which breaks the symmetry of the rank components.

Letters: A is the down factor ``(rank, in)`` of a low-rank pair ``B A``.
"""

import torch
from torch import Tensor

from wsrl.options import SHARE, check_values


def asymmetric_mask(rank: int, num_in: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Choose which entries of ``A`` stay frozen (at zero) in every field.

    Every column (input) and every row (rank component) keeps at least one free entry. So no more than
    ``rank * num_in - max(rank, num_in)`` entries can be frozen; with rank 1 none is.

    Args:
        rank: Rows of ``A``.
        num_in: Columns of ``A``.
        fraction: Share of the entries to freeze, in [0, 1); reached to rounding where the limit above allows it.
        generator: Source of the choice, on the CPU; the same state gives the same mask.

    Returns:
        Boolean mask ``(rank, num_in)`` on the CPU, true where an entry is trainable.

    Raises:
        UserError: The fraction is out of range.
    """
    check_values({"fraction": fraction}, "mask_", fraction=SHARE)
    # one free entry in every row and every column
    num_free = max(rank, num_in)
    steps = torch.arange(num_free)
    rows = torch.randperm(rank, generator=generator)[steps % rank]
    columns = torch.randperm(num_in, generator=generator)[steps % num_in]
    kept = torch.zeros(rank, num_in, dtype=torch.bool)
    kept[rows, columns] = True
    # of the others as many as wanted, in a random order, are frozen
    order = (
        torch.rand(rank * num_in, generator=generator, dtype=torch.float64).masked_fill(kept.flatten(), 2.0).argsort()
    )
    num_frozen = min(round(fraction * rank * num_in), rank * num_in - int(kept.sum()))
    mask = torch.ones(rank * num_in, dtype=torch.bool)
    mask[order[:num_frozen]] = False
    return mask.reshape(rank, num_in)
