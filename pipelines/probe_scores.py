"""The scores of one row of the table of probes: by seed, so that rows can be compared seed by seed."""

from dataclasses import dataclass
from itertools import pairwise

from wsrl.evaluation.labelled_fields import LabelledFields
from wsrl.evaluation.protocol import Protocol, Spread, label_efficiency

ORDER = ("mlora", "lora", "mlp")
ORDERED = ("ari", "one_nn", "logistic")


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
        numbers = {f"{name}.{key}": value for key, value in self.facts.items()}
        for key, spread in self.spreads.items():
            numbers |= spread.entries(f"{name}.{key}")
        for count, spread in self.curve.items():
            numbers |= spread.entries(f"{name}.label_efficiency.{count}")
        return numbers

    def to_json(self) -> dict:
        """Plain values; :meth:`from_json` gives equal scores."""
        spreads, curve = ({key: spread.values for key, spread in of.items()} for of in (self.spreads, self.curve))
        return {"spreads": spreads, "curve": curve, "facts": self.facts}

    @classmethod
    def from_json(cls, data: dict) -> "Scores":
        """Rebuild scores from :meth:`to_json`."""
        spreads = {key: Spread(tuple(values)) for key, values in data["spreads"].items()}
        return cls(spreads, {int(key): Spread(tuple(values)) for key, values in data["curve"].items()}, data["facts"])


def score_items(items: LabelledFields, protocol: Protocol, counts: tuple[int, ...]) -> Scores:
    """Every probe, the clusters, the curve of label efficiency, and precision by class.

    Args:
        items: Features and labels.
        protocol: Seeds and splits.
        counts: Labelled items of each class for the curve, whose test part is the items' own.
    """
    return Scores(items.spreads(protocol), label_efficiency(items, protocol.seeds, counts), items.precision())


def order_of(rows: dict[str, Scores]) -> dict[str, float]:
    """Whether the order of the paper holds: ``mlora`` above ``lora`` above ``mlp``.

    Args:
        rows: Scores by row; without those three nothing is returned.

    Returns:
        For ARI, 1-NN and logistic regression both differences, mean and standard deviation over seeds (whose splits are
        the same for all rows), and ``order.<score>.confirmed``: 1 where both exceed twice that deviation, else 0.
    """
    if not set(ORDER) <= set(rows):
        return {}
    results: dict[str, float] = {}
    for score in ORDERED:
        clear = []
        for better, worse in pairwise(ORDER):
            pairs = zip(rows[better].spreads[score].values, rows[worse].spreads[score].values)
            spread = Spread(tuple(first - second for first, second in pairs))
            results |= spread.entries(f"order.{score}.{better}_minus_{worse}")
            clear.append(spread.mean > 2 * spread.std)
        results[f"order.{score}.confirmed"] = float(all(clear))
    return results
