"""Retrieval: the fields of a store whose weights are nearest to those of one, and how often they are of its class.

Letters: N fields, F features (trainable weights, or others), Q queries, K neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.evaluation.features import BATCH
from wsrl.fields.gauge import RAW
from wsrl.options import at_least, check_values, one_of
from wsrl.store import WeightStore

METRICS = ("cosine", "euclidean")


@dataclass(frozen=True)
class Neighbours:
    """The nearest fields of one field, the nearest first.

    Attributes:
        rows: Their rows in the store, ``(K,)``.
        distances: Of their standardised weights: one minus the cosine, or Euclidean, divided by the root of the number
            of weights, so that it is in standard deviations of a weight.
    """

    rows: np.ndarray
    distances: np.ndarray


def nearest_fields(store: WeightStore, row: int, k: int, metric: str = "cosine", gauge: str = RAW) -> Neighbours:
    """The fields of a store whose trainable weights, each standardised over the store, are nearest to those of one.

    The store is read twice, block by block: for means and standard deviations, and for distances. Fields with a weight
    that is not finite are never near.

    Args:
        store: The store.
        row: The field that is asked about; it is not among its neighbours.
        k: Number of neighbours, K; all others where there are fewer.
        metric: ``cosine`` or ``euclidean``.
        gauge: ``raw``, or ``canonical``: weights in the form of :mod:`wsrl.fields.gauge`.

    Returns:
        The neighbours; of equally near ones the first in the store.

    Raises:
        UserError: The metric is unknown, ``k`` is less than one, or the fields have no canonical gauge.
    """
    _check(metric, k)
    statistics = WeightStatistics.from_batches(store.layout, _finite_batches(store), gauge)
    query = statistics.normalise({name: tensor[None] for name, tensor in store[row].items()}).double()
    best = (torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    start = 0
    for batch in store.batches(BATCH):
        vectors = statistics.normalise(batch.weights).double()
        rows = torch.arange(start, start + len(batch))
        start += len(batch)
        distances = pairwise_distances(query, vectors, metric)[0]
        kept = (rows != row) & distances.isfinite()
        together = torch.cat([best[0], distances[kept]]), torch.cat([best[1], rows[kept]])
        order = together[0].argsort(stable=True)[:k]  # rows come in order, so that the first of equals is kept
        best = together[0][order], together[1][order]
    return Neighbours(rows=best[1].numpy(), distances=best[0].numpy())


def _finite_batches(store: WeightStore):
    for batch in store.batches(BATCH):
        flat = store.layout.flatten(batch.weights)
        finite = flat.isfinite().all(dim=1)
        if bool(finite.any()):
            yield store.layout.unflatten(flat[finite])


def pairwise_distances(queries: Tensor, references: Tensor, metric: str) -> Tensor:
    """Distances ``(Q, N)`` of vectors ``(Q, F)`` and ``(N, F)``.

    Args:
        queries: Vectors.
        references: Others.
        metric: ``cosine``: one minus the cosine, one where a vector is zero; ``euclidean``: divided by the root of F.
    """
    if metric == "euclidean":
        return torch.cdist(queries, references) / max(queries.shape[1], 1) ** 0.5
    return 1 - torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(references, dim=1).mT


def precision_at_k(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    ks: Sequence[int],
    *,
    metric: str = "cosine",
    queries: tuple[np.ndarray | Tensor, np.ndarray | Tensor] | None = None,
) -> Mapping[int, float]:
    """Share of the K nearest items that are of the class of the query, averaged over queries.

    Features are standardised by the mean and standard deviation of each over the items; constant ones are left out.
    Memory grows with N, not with N squared.

    Args:
        features: Features ``(N, F)`` of the items that are searched.
        labels: Class of each item, ``(N,)``.
        ks: Numbers of neighbours.
        metric: ``cosine`` or ``euclidean``.
        queries: Features ``(Q, F)`` and classes of items that are not among those searched, such as a test part; None
            asks with every item for the others.

    Returns:
        The precision in [0, 1] for each of ``ks``.

    Raises:
        UserError: There are no more items than the largest K, or the metric is unknown.
    """
    for k in ks:
        _check(metric, k)
    right = nearest_right(features, labels, max(ks), metric=metric, queries=queries).mean(axis=0).cumsum()  # (K,)
    return {k: float(right[k - 1] / k) for k in ks}


def nearest_right(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    k: int,
    *,
    metric: str = "cosine",
    queries: tuple[np.ndarray | Tensor, np.ndarray | Tensor] | None = None,
) -> np.ndarray:
    """Whether each of the K nearest items, the nearest first, is of the class of the query: ``(Q, K)``.

    Args:
        features: As :func:`precision_at_k` takes them.
        labels: Class of each item, ``(N,)``.
        k: Number of neighbours, K.
        metric: ``cosine`` or ``euclidean``.
        queries: As :func:`precision_at_k` takes them.

    Raises:
        UserError: There are no more items than K, or the metric is unknown.
    """
    _check(metric, k)
    items, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    # Standardise by the items that are searched, with what does not vary among them left out.
    mean, scale = items.mean(axis=0), items.std(axis=0)
    varies = scale > 0
    items = (items[:, varies] - mean[varies]) / scale[varies]  # (N, F)
    asked, asked_classes = None, classes
    if queries is not None:
        asked = (np.asarray(queries[0], dtype=np.float64)[:, varies] - mean[varies]) / scale[varies]  # (Q, F)
        asked_classes = np.asarray(queries[1])
    others = len(items) - (queries is None)
    if k > others:
        raise UserError(f"k is {k}", allowed=f"1 to {others} for {len(items)} items", do="ask for fewer")
    # Exact neighbours, the nearest first; without queries scikit-learn leaves each item out of its own.
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(items)
    nearest = search.kneighbors(asked, return_distance=False)  # (Q, K)
    return classes[nearest] == asked_classes[:, None]


def _check(metric: str, k: int) -> None:
    check_values({"metric": metric, "k": k}, metric=one_of(*METRICS), k=at_least(1))
