"""Distances between two sets of feature vectors, and their precision and recall; all sums are in float64.

Letters: N samples, M references, F features.
Source: arXiv 1706.08500 (Fréchet distance), arXiv 1801.01401 (KID), Gretton et al. 2012 (MMD), arXiv 1904.06991
(precision and recall).
"""

import torch
from torch import Tensor

CHUNK = 1024
MEDIAN_ROWS = 2_000
ROUNDING = 1e-13
"""Share of the largest squared norm by which a point may lie outside of a ball, for copies in balls of no radius."""
NEAREST = 3
"""Neighbours that make the radius of a point, the paper's choice."""


def frechet_distance(samples: Tensor, references: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians with the moments of two sets.

    ``|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))``. The trace of the root is taken from the eigenvalues of
    the symmetric ``C_x^(1/2) C_y C_x^(1/2)``, so no root of an asymmetric matrix is needed and the result is real.

    Args:
        samples: Features ``(N, F)``, N at least 2.
        references: Features ``(M, F)``, M at least 2.

    Source: arXiv 1706.08500, equation 6; unbiased covariances, as in its code.
    """
    x, y = samples.double(), references.double()
    # tr (C_x C_y)^(1/2) by the eigenvalues of C_x^(1/2) C_y C_x^(1/2), (F, F).
    root = _root(_covariance(x))
    middle = root @ _covariance(y) @ root
    cross = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    difference = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    spread = x.var(dim=0).sum() + y.var(dim=0).sum()
    return float((difference + spread - 2 * cross).clamp(min=0))


def mmd_polynomial(samples: Tensor, references: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel ``(x . y / F + 1)^3``: the kernel inception distance.

    The unbiased estimate over all pairs, without subsets; it may be slightly negative.

    Args:
        samples: Features ``(N, F)``, N at least 2.
        references: Features ``(M, F)``, M at least 2.

    Source: arXiv 1801.01401, section 4.
    """
    size = samples.shape[1]
    return _mmd(samples.double(), references.double(), lambda x, y: (x @ y.T / size + 1) ** 3)


def mmd_gaussian(samples: Tensor, references: Tensor, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy with the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``; unbiased.

    Args:
        samples: Features ``(N, F)``, N at least 2.
        references: Features ``(M, F)``, M at least 2.
        bandwidth: Width of the kernel; None takes :func:`median_distance` of the references, which does not depend on
            the samples, so that scores of several sets can be compared.

    Source: Gretton et al. 2012, "A kernel two-sample test", lemma 6 and section 8 (median rule).
    """
    x, y = samples.double(), references.double()
    width = median_distance(y) if bandwidth is None else bandwidth
    return _mmd(x, y, lambda a, b: torch.exp(-_squared(a, b) / (2 * width**2)))


def median_distance(references: Tensor) -> float:
    """Median distance between different points, of at most ``MEDIAN_ROWS`` evenly spread rows.

    Args:
        references: Points ``(M, F)``.

    Returns:
        The median, or 1 where it is zero: a set of equal points has no scale.
    """
    rows = references[:: -(-len(references) // MEDIAN_ROWS)].double()
    median = float(torch.pdist(rows).median()) if len(rows) > 1 else 0.0
    return median or 1.0


def precision_recall(samples: Tensor, references: Tensor) -> tuple[float, float]:
    """Share of samples inside the manifold of the references, and of references inside that of the samples.

    The manifold of a set is the union of balls about its points; a ball reaches to the point's ``NEAREST``-th
    neighbour among the other points of the set, which has at least one point more.

    Args:
        samples: Features ``(N, F)``.
        references: Features ``(M, F)``.

    Returns:
        Precision and recall in [0, 1].

    Source: arXiv 1904.06991, section 2.
    """
    x, y = samples.double(), references.double()
    return _share_inside(x, y, _radii(y)), _share_inside(y, x, _radii(x))


def _covariance(points: Tensor) -> Tensor:
    centred = points - points.mean(dim=0)
    return centred.T @ centred / (len(points) - 1)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances ``(N, M)`` by products, about the mean of ``y`` so that little is lost to rounding."""
    centre = y.mean(dim=0)
    x, y = x - centre, y - centre
    return (x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T).clamp(min=0)


def _mmd(x: Tensor, y: Tensor, kernel) -> float:
    within = [_sum(part, part, kernel) - _sum_diagonal(part, kernel) for part in (x, y)]
    pairs = [len(part) * (len(part) - 1) for part in (x, y)]
    return float(within[0] / pairs[0] + within[1] / pairs[1] - 2 * _sum(x, y, kernel) / (len(x) * len(y)))


def _sum(x: Tensor, y: Tensor, kernel) -> Tensor:
    return torch.stack([kernel(a, b).sum() for a in x.split(CHUNK) for b in y.split(CHUNK)]).sum()


def _sum_diagonal(x: Tensor, kernel) -> Tensor:
    return torch.stack([kernel(a, a).diagonal().sum() for a in x.split(CHUNK)]).sum()


def _radii(points: Tensor) -> Tensor:
    """Squared distance of each point to its ``NEAREST``-th neighbour among the others, ``(N,)``."""
    radii = []
    for start, block in zip(range(0, len(points), CHUNK), points.split(CHUNK)):
        squared = _squared(block, points)
        squared[torch.arange(len(block)), torch.arange(start, start + len(block))] = torch.inf
        radii.append(squared.kthvalue(NEAREST, dim=1).values)
    return torch.cat(radii)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    rounding = ROUNDING * float((centres - centres.mean(dim=0)).square().sum(dim=1).max())
    inside = [(_squared(block, centres) <= radii + rounding).any(dim=1) for block in points.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
