"""What fits of the same signals from different starts have in common: of data, of one store, or of two.

Letters: N fields.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wsrl.errors import UserError
from wsrl.evaluation.features import signals_of_rows, some_rows, weights_of_rows
from wsrl.evaluation.product_space import has_products, product_cosine_between
from wsrl.evaluation.structure import banded, cosine_between, mean_effective_rank, with_band
from wsrl.evaluation.structure_fits import (
    LAMBDAS,
    Fits,
    compare_fits,
    fit_from,
    measure_starts,
    read_usable,
    starts_of,
)
from wsrl.fields.foreign import ForeignRepresentation
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.options import at_least, check, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.signals.signal import Signal
from wsrl.signals.source import Source, prepare_signals
from wsrl.store import WeightStore
from wsrl.store.source import open_store_source


@dataclass(frozen=True, kw_only=True)
class StructureOptions:
    """What is measured.

    Attributes:
        num: Signals to measure on, at most.
        points: Points of the path between two fields.
        lambdas: Distances of the starts that data are fitted from, from 0 to 1.
        data: What a store was built from; None where the manifest knows it.
        seed: Seed of the choice of fields, of starts and of confidence bands.

    Raises:
        UserError: An option is out of range.
    """

    num: int = option(50, at_least(1))
    points: int = option(25, at_least(3))
    lambdas: tuple[float, ...] = LAMBDAS
    data: str | None = None
    seed: int = 0

    def __post_init__(self):
        check(self)


def measure_data(
    source: Source,
    recipes: Mapping[str, tuple[RepresentationConfig, FitConfig]],
    base: BaseField | None,
    options: StructureOptions,
    *,
    progress: ShowProgress = silent,
) -> dict[str, float]:
    """Measures of fits that are made now, from one start and from others that lie ``lambda`` away.

    Args:
        source: The signals.
        recipes: What the weights are and how they are fitted, by kind.
        base: The base field of adapters; None where no kind is one.
        options: Number of signals, distances and points.
        progress: Shows how many fields are fitted.

    Returns:
        Measures under ``<kind>.lambda_<distance>.<measure>``.
    """
    indices = range(min(options.num, len(source)))
    prepare_signals(source, indices, progress)
    signals, metrics = read_usable(source, indices), {}
    for kind, (config, fit) in recipes.items():
        representation = Representation.build(config, base if config.is_adapter else None, **source.form.sizes)
        say(progress, f"{config}, {fit}")
        measures = measure_kind(representation, signals, fit, options, progress)
        metrics |= {f"{kind}.{name}": value for name, value in measures.items()}
    return metrics


def measure_kind(
    representation: Representation,
    signals: Sequence[Signal],
    fit: FitConfig,
    options: StructureOptions,
    progress: ShowProgress = silent,
) -> dict[str, float]:
    """Measures by distance, of fits of one kind that are made now."""
    what = f"{representation.config.kind}: fields"
    with progress(what, len(signals) * len({0.0, *options.lambdas})) as shown:

        def fitted(distance: float) -> Fits:
            start = starts_of(representation, distance, options.seed)
            return fit_from(representation, signals, fit, start, shown)

        sizes = {"seed": options.seed, "num_points": options.points}
        return measure_starts(representation, signals, fitted, options.lambdas, **sizes)


def measure_store(path: Path | str, options: StructureOptions) -> dict[str, float]:
    """Effective rank of the fields of a store, and the cosine similarity of fields of different signals.

    That of adapters is also told of their products ``B A``, which are the same in every gauge.
    """
    with WeightStore.open(path) as store:
        if not len(store):
            raise UserError(f"{path} holds no fields", do="build some")
        weights = weights_of_rows(store, some_rows(store, options.num, options.seed))
        ranks = mean_effective_rank(store.representation, weights).numpy()
        metrics = {"num": len(ranks), **with_band("effective_rank", ranks, options.seed)}
        if len(ranks) > 1:
            cosines = cosine_between(store.representation, weights).numpy()
            metrics |= with_band("cosine_between_signals", cosines, options.seed)
        if len(ranks) > 1 and has_products(store.layout):
            cosines = product_cosine_between(store.layout, weights).numpy()
            metrics |= with_band("cosine_ba_between_signals", cosines, options.seed)
    return metrics


def measure_stores(path: Path | str, partner: Path | str, options: StructureOptions) -> dict[str, float]:
    """Measures of the pairs of fields that two stores hold of the same signals.

    Raises:
        UserError: Their weights don't mean the same, or they have no signal in common.
    """
    with WeightStore.open(path) as store, WeightStore.open(partner) as other:
        check_alike(store, other)
        there = set(other.ids)
        rows = [row for row, name in enumerate(store.ids) if name in there]
        if not rows:
            wrong = f"{path} and {partner} have no signal in common"
            raise UserError(wrong, allowed="two stores of the same data", do="build the second one from the same data")
        rows = [rows[i] for i in some_rows(rows, options.num, options.seed)]
        signals = list(signals_of_rows(store, open_store_source(store, options.data), rows))
        fits = [stored_fits(each, [signal.id for signal in signals]) for each in (store, other)]
        measures = compare_fits(store.representation, signals, *fits, options.points)
    return {"num": len(signals), **banded(measures, options.seed)}


def check_alike(store: WeightStore, partner: WeightStore) -> None:
    """Refuse two stores whose weights don't mean the same.

    Raises:
        UserError: They have different layouts (masks are part of them) or base fields.
    """
    same_layout = json.dumps(store.layout.to_json()) == json.dumps(partner.layout.to_json())
    if same_layout and store.manifest["base_sha256"] == partner.manifest["base_sha256"]:
        return
    what = "base fields" if same_layout else "layouts or masks"
    raise UserError(
        f"{store.directory} and {partner.directory} have different {what}",
        allowed="two stores of one representation, with the same representation.seed",
        do="build the second one with --representation.start random and another --fit.seed",
    )


def stored_fits(store: WeightStore, ids: list[str]) -> Fits:
    """Fields of a store and what they were fitted from; imported ones count as fitted from zero."""
    representation, rows = store.representation, [store.row(name) for name in ids]
    if isinstance(representation, ForeignRepresentation):
        start = {spec.name: torch.zeros(spec.shape) for spec in representation.layout}
    elif representation.config.start == "shared":
        start = representation.initial()
    else:
        seeds = [torch.Generator().manual_seed(int(store.record(row)["seed"])) for row in rows]
        starts = [representation.initial(seed) for seed in seeds]
        start = {name: torch.stack([each[name] for each in starts]) for name in starts[0]}  # (N, *shape)
    return Fits(ids, weights_of_rows(store, rows), start)
