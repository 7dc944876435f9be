"""How a low-rank pair changes a frozen weight: the multiplicative forms and their starts.

Letters: W is the frozen weight ``(out, in)``, A the down factor ``(*batch, rank, in)``, B the up factor
``(*batch, out, rank)``.
"""

import math

import torch
from torch import Tensor

from wsrl.options import check_values, one_of

FORMS = ("exp", "one_plus", "product")
FORM = one_of(*FORMS)
ANY_FORM = one_of(*FORMS, "add")
"""The multiplicative forms, and LoRA's additive one beside them."""
INIT_STD = {"exp": 0.5, "one_plus": 0.5, "product": 0.1}
"""Standard deviation of the start that was measured to fit best, by form (see ``start_factors``)."""


def scale_weight(base: Tensor, down: Tensor, up: Tensor, form: str) -> Tensor:
    """Scale a frozen weight entrywise by a low-rank factor.

    ``exp``: ``W' = W * exp(B A)``; ``one_plus``: ``W' = W * (1 + B A)``; ``product``: ``W' = W * (B A)``.

    Args:
        base: Frozen weight ``(out, in)``, shared by the batch.
        down: Factors ``A`` ``(*batch, rank, in)``.
        up: Factors ``B`` ``(*batch, out, rank)``.
        form: One of ``FORMS``.

    Returns:
        Weights ``(*batch, out, in)``.

    Raises:
        UserError: The form is unknown.

    Source: arXiv 2512.01759, section 3.2 (``product``); the other two are deviations that start at the base field.
    """
    factor = up @ down
    if form == "exp":
        return base * factor.exp()
    if form == "one_plus":
        return base + base * factor
    if form == "product":
        return base * factor
    check_values({"form": form}, form=FORM)
    raise AssertionError(f"form {form} is listed but has no formula")


def start_factors(
    num_in: int,
    num_out: int,
    rank: int,
    form: str,
    mask: Tensor | None,
    init_std: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Factors with which the scaled weight equals the frozen one, to rounding.

    ``exp`` and ``one_plus`` (and an additive pair) start from ``B = 0`` and a normal ``A``. ``product`` starts from a
    constant ``B`` and an ``A`` whose free entries are log-normal about a constant, normalised so that ``B A = 1``.

    Args:
        num_in: Columns of ``A``.
        num_out: Rows of ``B``.
        rank: Rank of the pair.
        form: One of ``FORMS``, or ``add``.
        mask: Boolean ``(rank, in)``, true where ``A`` is trainable; ``A`` is zero elsewhere. None for no mask.
        init_std: Standard deviation of ``A``; for ``product`` of the logarithm of its free entries.
        generator: Source of the noise, on the CPU; None for torch's global one.

    Returns:
        ``A`` ``(rank, in)`` and ``B`` ``(out, rank)``, float32 on the CPU.

    Raises:
        UserError: The form is unknown.
    """
    check_values({"form": form}, form=ANY_FORM)
    # A ~ N(0, init_std^2) where it is free, B = 0: B A = 0, and exp(B A) = 1 + B A = 1.
    noise = init_std * torch.randn(rank, num_in, generator=generator)
    free = torch.ones(rank, num_in) if mask is None else mask.to(noise)
    if form != "product":
        return noise * free, torch.zeros(num_out, rank)
    # B = 1 / sqrt(r); the columns of A sum to sqrt(r): B A = 1.
    positive = noise.exp() * free
    down = positive * (math.sqrt(rank) / positive.sum(0))
    return down, torch.full((num_out, rank), 1 / math.sqrt(rank))
