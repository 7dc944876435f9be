"""The scores of one row of the table of probes: by seed, so that rows can be compared seed by seed.

Letters: N items, F features.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wsrl.evaluation.clustering import cluster_scores
from wsrl.evaluation.protocol import Protocol, Spread, label_efficiency, precision_by_class, probe_scores

ORDER = ("mlora", "lora", "mlp")
NEIGHBOURS = 8
ORDERED = ("ari", "one_nn", "logistic")


@dataclass(frozen=True)
class Items:
    """What is read from, and how it is cut.

    Attributes:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``.
        train: Places of the training part.
        test: Places of the test part.
        rows: Rows of the store.
        label_names: Names of all classes of the store.
    """

    features: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    rows: np.ndarray
    label_names: np.ndarray


@dataclass(frozen=True)
class Scores:
    """Scores of a row.

    Attributes:
        spreads: Probes and clusters by name.
        curve: Accuracy by the number of labelled fields of each class.
        facts: Plain numbers by name.
    """

    spreads: dict[str, Spread]
    curve: dict[int, Spread]
    facts: dict[str, float]

    def entries(self, name: str) -> dict[str, float]:
        """Numbers of the record under the name of the row."""
        found = {f"{name}.{key}": value for key, value in self.facts.items()}
        for key, spread in self.spreads.items():
            found |= spread.entries(f"{name}.{key}")
        for count, spread in self.curve.items():
            found |= spread.entries(f"{name}.label_efficiency.{count}")
        return found

    def to_json(self) -> dict:
        """Plain values; :meth:`from_json` gives equal scores."""
        spreads, curve = ({key: spread.values for key, spread in of.items()} for of in (self.spreads, self.curve))
        return {"spreads": spreads, "curve": curve, "facts": self.facts}

    @classmethod
    def from_json(cls, data: dict) -> "Scores":
        """Rebuild scores from :meth:`to_json`."""
        spreads = {key: Spread(tuple(values)) for key, values in data["spreads"].items()}
        return cls(spreads, {int(key): Spread(tuple(values)) for key, values in data["curve"].items()}, data["facts"])


def score_items(items: Items, protocol: Protocol, counts: tuple[int, ...]) -> Scores:
    """Every probe, the clusters, the curve of label efficiency, and precision by class.

    Args:
        items: Features and labels.
        protocol: Seeds and splits.
        counts: Labelled items of each class for the curve, whose test part is the items' own.
    """
    given = items.features, items.labels, items.train, items.test
    spreads = probe_scores(*given, protocol) | cluster_scores(items.features, items.labels, protocol.seeds)
    mean, by_class = precision_by_class(*given, NEIGHBOURS)
    key = f"precision_at_{NEIGHBOURS}"
    facts = {key: mean} | {f"{key}.{items.label_names[number]}": value for number, value in by_class.items()}
    return Scores(spreads, label_efficiency(*given, protocol.seeds, counts), facts)


def order_of(found: dict[str, Scores]) -> dict[str, float]:
    """Whether the order of the paper is found: ``mlora`` above ``lora`` above ``mlp``.

    Args:
        found: Scores by row; without those three there is nothing to tell.

    Returns:
        For ARI, 1-NN and logistic regression both differences, mean and deviation over seeds (whose splits are the same
        for all rows), and ``order.<score>.confirmed``: 1 where both exceed twice the deviation, else 0.
    """
    if not set(ORDER) <= set(found):
        return {}
    results: dict[str, float] = {}
    for score in ORDERED:
        clear = []
        for better, worse in pairwise(ORDER):
            pairs = zip(found[better].spreads[score].values, found[worse].spreads[score].values)
            spread = Spread(tuple(first - second for first, second in pairs))
            results |= spread.entries(f"order.{score}.{better}_minus_{worse}")
            clear.append(spread.mean > 2 * spread.std)
        results[f"order.{score}.confirmed"] = float(all(clear))
    return results
