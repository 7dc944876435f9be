"""The gauge of low-rank factors: the freedom that no function sees, and the one member of each class that is kept.

Every form of an adapter reads its factors through their product ``B A`` alone, so ``(R^-1 A, B R)`` is the same field
for any invertible ``R``. What is left of that freedom where a mask freezes entries of ``A``:

- Frozen zeros (``mlora_asym``): ``T A`` with ``T = R^-1`` has to keep its zeros, so what row i takes of other rows must
  vanish at the frozen places of row i. Where the other rows are linearly independent there, only the diagonal of ``T``
  is left: a scale and a sign for each component. Masks of the default size are like that; where they freeze fewer
  than ``rank - 1`` entries of a row, more is left, which is not removed here.
- Frozen numbers other than zero (``lora_asym``) fix the scale and the sign of their row too: nothing is left.

Letters: N fields, r rank, k dimensions of a product ``B A``, at most r.

Source: the form of :func:`canonical_factors` is that of arXiv 2603.15990; the masks are our own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.layout import Layout, TensorSpec

RAW, CANONICAL = "raw", "canonical"
GAUGES = (RAW, CANONICAL)
"""Weights as they were fitted, or in canonical form."""
SLACK = 4.0
"""Rounding that is passed over, in units of the precision of the weights."""


@dataclass(frozen=True)
class FactorPair:
    """The factors of one layer.

    Attributes:
        down: The factor ``A`` ``(r, in)``.
        up: The factor ``B`` ``(out, r)``.
    """

    down: TensorSpec
    up: TensorSpec


def factor_pairs(layout: Layout) -> list[FactorPair]:
    """The factors of every layer of an adapter; none for standalone fields."""
    found = []
    for group, specs in layout.groups().items():
        named = {spec.name.removeprefix(f"{group}."): spec for spec in specs}
        if {"down", "up"} <= named.keys():
            found.append(FactorPair(named["down"], named["up"]))
    return found


def check_gauge(gauge: str, layout: Layout, name: str = "gauge") -> None:
    """Refuse a gauge that is unknown, or a canonical one of fields without factors.

    Args:
        gauge: One of ``GAUGES``.
        layout: Layout of the fields.
        name: Name of the option, for the message.

    Raises:
        UserError: It does not fit.
    """
    if gauge not in GAUGES:
        raise UserError(f"{name} is {gauge!r}", allowed=", ".join(GAUGES), do="choose one of these")
    if gauge == CANONICAL and not factor_pairs(layout):
        raise UserError(
            f"{name} is {gauge!r}, but these fields are networks of their own, without factors",
            allowed=f"{RAW}, or fields of the kinds lora, lora_asym, mlora and mlora_asym",
            do=f"leave {name} at {RAW}; `wsrl align STORE --template mean` aligns the neurons of such fields",
        )


def canonical(layout: Layout, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The fields in canonical gauge; functions stay the same to rounding.

    Factors without a mask become those of :func:`canonical_factors`, others those of :func:`canonical_components`.
    What is no factor stays as it is, and so do the factors of a layer with a number that is not finite.

    Args:
        layout: Layout of the fields.
        weights: Weights ``(N, *shape)``, or ``shape`` of one field.

    Returns:
        Weights of the same shapes, in the same precision; those already in the form come back bit for bit.
    """
    moved = dict(weights)
    for pair in factor_pairs(layout):
        down, up = weights[pair.down.name], weights[pair.up.name]
        if down.ndim == 2:
            factors = (one[0] for one in _canonical_pair(pair, down[None], up[None]))
        else:
            factors = _canonical_pair(pair, down, up)
        moved[pair.down.name], moved[pair.up.name] = factors
    return moved


def _canonical_pair(pair: FactorPair, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    finite = (down.isfinite().all((-2, -1)) & up.isfinite().all((-2, -1)))[:, None, None]  # (N, 1, 1)
    # LAPACK refuses a whole batch for one number that is not finite
    safe = torch.where(finite, down, 0), torch.where(finite, up, 0)
    if pair.down.frozen is None:
        factors = canonical_factors(*safe)
    else:
        factors = canonical_components(*safe, pair.down.trainable().to(down.device))
    return torch.where(finite, factors[0], down), torch.where(finite, factors[1], up)


def canonical_factors(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The balanced factors of ``B A = U S V^T``: ``B = U sqrt(S)`` and ``A = sqrt(S) V^T``, the largest value first.

    The largest entry of each column of ``B`` is positive. Where the product has fewer than r dimensions the other
    components are zero; so is all of a start with ``B = 0``. Values within rounding of the largest one's last digits
    count as zero. Where two singular values are equal or nearly so, their order and the basis of what they span are
    not determined: rounding of size e moves the factors by ``e / gap``, and classes meet to that.

    Args:
        down: Factors ``A`` ``(N, r, in)``, all finite.
        up: Factors ``B`` ``(N, out, r)``.

    Returns:
        ``A`` and ``B`` in the precision of the given ones; those that are in this form already, unchanged.
    """
    eps = torch.finfo(up.dtype).eps
    # 1. Orthonormal bases of both sides, in float64, and the core of the product between them.
    left, left_core = torch.linalg.qr(up.double())  # (N, out, k), (N, k, r)
    right, right_core = torch.linalg.qr(down.mT.double())  # (N, in, k'), (N, k', r)
    # 2. The singular values of the core are those of the product.
    turn, values, other = torch.linalg.svd(left_core @ right_core.mT, full_matrices=False)
    values = torch.where(values > SLACK * eps * values[..., :1], values, 0)  # (N, k)
    # 3. Half of each value to either side; missing dimensions are zero.
    missing = (0, up.shape[-1] - values.shape[-1])
    scale = values.sqrt().unsqueeze(-2)
    new_up = torch.nn.functional.pad((left @ turn) * scale, missing).to(up)  # (N, out, r)
    new_down = torch.nn.functional.pad((right @ other.mT) * scale, missing).mT.to(down)  # (N, r, in)
    # 4. One sign for each component.
    signs = _signs(new_up)
    new_down, new_up = new_down * signs.mT, new_up * signs
    # Factors in this form would be moved by rounding alone, far where values are close: they stay.
    kept = _is_canonical(down, up)[:, None, None]
    return torch.where(kept, down, new_down), torch.where(kept, up, new_up)


def canonical_components(down: Tensor, up: Tensor, trainable: Tensor) -> tuple[Tensor, Tensor]:
    """Factors under a mask: each row of ``A`` and column of ``B`` of one length, the largest entry of ``B`` positive.

    Rows with a frozen entry other than zero stay as they are. Where a row or its column is zero, both become zero.

    Args:
        down: Factors ``A`` ``(N, r, in)``, all finite.
        up: Factors ``B`` ``(N, out, r)``.
        trainable: Mask ``(r, in)``, false where ``A`` is frozen.

    Returns:
        ``A`` and ``B`` in the precision of the given ones; frozen entries are unchanged.
    """
    fixed = ((down != 0) & ~trainable).any(-1)  # (N, r)
    lengths, others = down.double().norm(dim=-1), up.double().norm(dim=-2)  # (N, r)
    absent = (lengths == 0) | (others == 0)
    factor = torch.where(absent, 1.0, (lengths / torch.where(absent, 1.0, others)).sqrt())
    factor = torch.where((factor - 1).abs() <= SLACK * torch.finfo(up.dtype).eps, 1.0, factor)
    new_up = (up * torch.where(absent, 0.0, factor).unsqueeze(-2)).to(up)
    new_down = (down * torch.where(absent, 0.0, 1 / factor).unsqueeze(-1)).to(down)
    signs = _signs(new_up)
    kept = fixed.unsqueeze(-1)
    return torch.where(kept, down, new_down * signs.mT), torch.where(kept.mT, up, new_up * signs)


def _signs(up: Tensor) -> Tensor:
    """Signs ``(N, 1, r)`` that make the largest entry of each column positive; of equal entries the first counts."""
    largest = up.gather(-2, up.abs().argmax(-2, keepdim=True))
    return torch.where(largest < 0, -1, 1).to(up)


def _is_canonical(down: Tensor, up: Tensor) -> Tensor:
    """Whether factors have the form of :func:`canonical_factors`, to rounding, ``(N,)``."""
    slack = SLACK * torch.finfo(up.dtype).eps
    left, right = up.double(), down.double()
    grams = torch.stack([left.mT @ left, right @ right.mT])  # (2, N, r, r)
    values = grams.diagonal(dim1=-2, dim2=-1)  # (2, N, r)
    size = (values.unsqueeze(-1) * values.unsqueeze(-2)).sqrt()
    # orthogonal columns of B and rows of A, component by component of the same length, the longest first
    is_orthogonal = (torch.triu(grams, 1).abs() <= slack * size).all((0, 2, 3))
    is_balanced = ((values[0] - values[1]).abs() <= slack * values[0]).all(-1)
    is_ordered = (values[0, :, 1:] <= values[0, :, :-1] * (1 + slack)).all(-1)
    has_signs = (_signs(up) > 0).all((-2, -1))
    return is_orthogonal & is_balanced & is_ordered & has_signs
