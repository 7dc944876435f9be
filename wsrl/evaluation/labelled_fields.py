"""The labelled fields of a store as probes read them, and the scores of them that everything on probes shares.

Letters: N items, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsrl.evaluation.clustering import cluster_scores
from wsrl.evaluation.features import LabelledRows, d2_features, pixel_features, product_features, weight_features
from wsrl.evaluation.probe import PROBES
from wsrl.evaluation.protocol import Items, Protocol, Spread, precision_by_class, probe_scores
from wsrl.fields.gauge import CANONICAL
from wsrl.signals.source import Source
from wsrl.store import WeightStore

PRECISION_NEIGHBOURS = 8
PRODUCTS = "products"
READINGS = (CANONICAL, PRODUCTS)
"""Kinds of features of adapters that the gauge of their factors does not touch."""


@dataclass(frozen=True)
class LabelledFields(Items):
    """Features of some fields of a store, and what is known of the fields.

    Attributes:
        rows: Rows of the store ``(N,)``, sorted.
        label_names: Names of all classes of the store.
    """

    rows: np.ndarray
    label_names: Sequence[str]

    @classmethod
    def read(
        cls, store: WeightStore, parts: LabelledRows, kind: str = "weights", source: Source | None = None, seed: int = 0
    ) -> "LabelledFields":
        """Read the features of one kind.

        Args:
            store: The store.
            parts: Rows of its fields.
            kind: ``weights``; ``canonical``, the same in that gauge; ``products``, random sums over the products
                ``B A`` of adapters, as many as trainable weights; or of the signals ``pixels`` or ``d2``.
            source: The source that the store was built from; what is read of weights needs none.
            seed: Seed of D2's pairs of points, and of the sums.

        Raises:
            UserError: The fields have no canonical gauge.
        """
        rows = np.sort(np.concatenate([parts.train, parts.test]))
        if kind == "weights":
            features = weight_features(store, rows)
        elif kind == CANONICAL:
            features = weight_features(store, rows, kind)
        elif kind == PRODUCTS:
            features = product_features(store, rows, seed)
        elif kind == "pixels":
            features = pixel_features(store, source, rows)
        else:
            features = d2_features(store, source, rows, seed)
        train, test = np.searchsorted(rows, parts.train), np.searchsorted(rows, parts.test)
        return cls(features.numpy(), parts.labels[rows], train, test, rows, store.label_names)

    @property
    def largest_class(self) -> float:
        """Share of the largest class of the test part: the accuracy of a reader that has learned nothing."""
        return float(np.unique(self.labels[self.test], return_counts=True)[1].max() / len(self.test))

    def spreads(self, protocol: Protocol, probes: Sequence[str] = PROBES) -> dict[str, Spread]:
        """Accuracies of probes, and how well clusters agree with the classes, over the protocol's seeds."""
        return probe_scores(self, protocol, probes) | cluster_scores(self.features, self.labels, protocol.seeds)

    def precision(self) -> dict[str, float]:
        """Share of the ``PRECISION_NEIGHBOURS`` nearest training fields that are of the class of a test field.

        Returns:
            ``precision_at_8`` over all test fields, and ``precision_at_8.<class>``; nothing where the training part is
            too small.
        """
        if len(self.train) <= PRECISION_NEIGHBOURS:
            return {}
        mean, by_class = precision_by_class(self, PRECISION_NEIGHBOURS)
        key = f"precision_at_{PRECISION_NEIGHBOURS}"
        return {key: mean} | {f"{key}.{self.label_names[number]}": share for number, share in by_class.items()}


def signal_kind(store: WeightStore) -> str:
    """The kind of features that the signals of a store have: ``d2`` of shapes, ``pixels`` of pictures."""
    return "d2" if store.form.is_shape else "pixels"
