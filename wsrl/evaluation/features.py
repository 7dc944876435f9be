"""Feature vectors of the fields of a store: their trainable weights, and the pixels or distances of their signals.

Letters: N fields, V trainable weights, F numbers of a signal.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.evaluation.probe import fixed_split
from wsrl.evaluation.shapes import d2_histogram
from wsrl.fields.gauge import CANONICAL, RAW, canonical, check_gauge, factor_pairs
from wsrl.fitting.engine import field_seed
from wsrl.signals.signal import Signal
from wsrl.signals.source import Source
from wsrl.store import WeightStore

BATCH = 256


def weight_features(store: WeightStore, rows: np.ndarray, gauge: str = RAW) -> Tensor:
    """Trainable weights ``(N, V)`` of some fields, in the order of ``rows``; the store is read block by block.

    Args:
        store: The store.
        rows: Rows of the fields.
        gauge: ``raw``, or ``canonical``: in the form of :mod:`wsrl.fields.gauge`.

    Raises:
        UserError: The fields have no canonical gauge.
    """
    mask, layout = store.layout.trainable(), store.layout
    features = torch.empty(len(rows), layout.num_trainable)
    for targets, weights in blocks_of_rows(store, rows, gauge):
        features[targets] = layout.flatten(weights)[:, mask]
    return features


def product_features(store: WeightStore, rows: np.ndarray, seed: int, num: int | None = None) -> Tensor:
    """What all gauges of the fields have in common: random sums ``(N, F)`` over the entries of their products ``B A``.

    Each number is the sum of ``u^T B A v`` over the layers, with entries of ``u`` and ``v`` that are 1 or -1 at random,
    so that squared distances between features are on average those between the products, to ``sqrt(2 / F)`` or so.

    Args:
        store: A store of adapters.
        rows: Rows of the fields.
        seed: Seed of the signs; equal seeds and layouts have the same.
        num: Number F of features; None for as many as a field has trainable weights.

    Raises:
        UserError: The fields have no factors.

    Source: random projections, Johnson and Lindenstrauss 1984; with signs, Achlioptas 2003.
    """
    check_gauge(CANONICAL, store.layout, "the gauge of the features")
    pairs, num = factor_pairs(store.layout), num or store.layout.num_trainable
    generator = torch.Generator().manual_seed(seed)

    def signs(size: int) -> Tensor:
        return torch.randint(0, 2, (num, size), generator=generator).float() * 2 - 1

    sides = [(signs(pair.up.shape[0]), signs(pair.down.shape[1])) for pair in pairs]
    features = torch.zeros(len(rows), num)
    for targets, weights in blocks_of_rows(store, rows):
        for pair, (left, right) in zip(pairs, sides):
            ups = torch.einsum("fo,nor->nfr", left, weights[pair.up.name])  # (B, F, r)
            downs = torch.einsum("fi,nri->nfr", right, weights[pair.down.name])  # (B, F, r)
            features[targets] += (ups * downs).sum(-1) / num**0.5
    return features


def stored_weights(store: WeightStore, rows: np.ndarray, gauge: str = RAW) -> dict[str, Tensor]:
    """Weights ``(N, *shape)`` of many fields of a store, in the order of ``rows``; it is read block by block.

    Args:
        store: The store.
        rows: Rows of the fields.
        gauge: ``raw``, or ``canonical``: in the form of :mod:`wsrl.fields.gauge`.

    Raises:
        UserError: The fields have no canonical gauge.
    """
    fields = {spec.name: torch.empty(len(rows), *spec.shape) for spec in store.layout}
    for targets, weights in blocks_of_rows(store, rows, gauge):
        for name, tensor in fields.items():
            tensor[targets] = weights[name]
    return fields


def weights_of_rows(store: WeightStore, rows: Sequence[int]) -> dict[str, Tensor]:
    """Weights ``(N, *shape)`` of few fields of a store, read one by one; empty where there are none."""
    fields = [store[int(row)] for row in rows]
    return {name: torch.stack([field[name] for field in fields]) for name in (fields[0] if fields else ())}


def blocks_of_rows(
    store: WeightStore, rows: np.ndarray, gauge: str = RAW
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Indices into ``rows`` ``(B,)`` and weights ``(B, *shape)`` of those fields, in the order of the store."""
    check_gauge(gauge, store.layout)
    index_of_row = np.full(len(store), -1)
    index_of_row[rows] = np.arange(len(rows))
    start = 0
    for batch in store.batches(BATCH):
        targets = torch.from_numpy(index_of_row[start : start + len(batch)])
        start += len(batch)
        if bool((wanted := targets >= 0).any()):
            weights = {name: tensor[wanted] for name, tensor in batch.weights.items()}
            yield targets[wanted], canonical(store.layout, weights) if gauge == CANONICAL else weights


def pixel_features(store: WeightStore, source: Source, rows: np.ndarray) -> Tensor:
    """Values ``(N, F)`` of the signals that some fields were fitted to, in the order of ``rows``.

    Raises:
        UserError: The source is not the one that the store was built from.
    """
    return torch.stack([signal.values.flatten() for signal in signals_of_rows(store, source, rows)])


def d2_features(store: WeightStore, source: Source, rows: np.ndarray, seed: int) -> Tensor:
    """D2 histograms ``(N, F)`` of the shapes that some fields were fitted to, in the order of ``rows``.

    Args:
        store: A store of shapes.
        source: The source that it was built from.
        rows: Rows of the fields.
        seed: Seed of the pairs of points; those of a shape depend on it and on the shape's id alone.

    Raises:
        UserError: The source is not the one that the store was built from.
    """
    histograms = (
        d2_histogram(np.asarray(signal.surface), field_seed(seed, signal.id))
        for signal in signals_of_rows(store, source, rows)
    )
    return torch.stack([torch.from_numpy(histogram) for histogram in histograms])


def some_rows(items: Sized, number: int, seed: int) -> np.ndarray:
    """So many rows of a store, or indices of a sequence, drawn at random, or all, in order."""
    return np.sort(np.random.default_rng(seed).permutation(len(items))[:number])


def heldout_rows(store: WeightStore) -> np.ndarray:
    """Rows of the test split, or all where there is none."""
    rows = np.flatnonzero(store.splits() == "test")
    return rows if len(rows) else np.arange(len(store))


def signals_of_rows(store: WeightStore, source: Source, rows: Sequence[int]) -> Iterator[Signal]:
    """The signals that some fields were fitted to.

    Args:
        store: The store.
        source: The source that it was built from.
        rows: Rows of the fields.

    Yields:
        The signals, in the order of ``rows``.

    Raises:
        UserError: The source has another signal at such an index.
    """
    indices = store.indices
    for row in rows:
        index, name = int(indices[row]), store.id_of(int(row))
        actual = source.ids[index] if index < len(source) else "nothing"
        if actual != name:
            raise UserError(
                f"signal {index} of the source {source.name} is {actual!r}, but the store has {name!r} there",
                allowed="the source that the store was built from, with the same options",
                do="give it with --data, and compare with `source` in the manifest of the store",
            )
        yield source[index]


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a store with a label, cut into a train and a test part.

    Attributes:
        train: Rows of the training part.
        test: Rows of the test part.
        labels: Class numbers of all rows of the store.
    """

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray

    def within(self, kept: np.ndarray) -> "LabelledRows":
        """The rows where a mask over the rows of the store holds."""
        return LabelledRows(self.train[kept[self.train]], self.test[kept[self.test]], self.labels)


def labelled_rows(store: WeightStore, seed: int, limit: int | None = None) -> LabelledRows:
    """The store's own train and test splits, or a stratified fifth for the test where it has none.

    Args:
        store: The store.
        seed: Seed of the split that is made where there is none, and of the rows that a limit keeps.
        limit: Most rows of each part, drawn at random; None keeps all.

    Returns:
        Sorted rows of both parts.

    Raises:
        UserError: There are fewer than two classes.
    """
    labels, splits = store.labels(), store.splits()
    known = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[known])) < 2:
        raise UserError(
            f"the store {store.directory} has fewer than two classes: there is nothing to read from its weights",
            allowed="a store built from labelled data",
            do="build one from a folder with one sub-folder per class, or from a named source",
        )
    # The store's own split, or one that is drawn.
    if "train" in splits and "test" in splits:
        train, test = (known[splits[known] == name] for name in ("train", "test"))
    else:
        train, test = (known[part] for part in fixed_split(labels[known], seed))
    generator = np.random.default_rng(seed)
    if limit is not None:
        train, test = (np.sort(generator.permutation(part)[:limit]) for part in (train, test))
    return LabelledRows(train, test, labels)
