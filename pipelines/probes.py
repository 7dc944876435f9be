"""Probes and clusters: how much of the class each kind of weights shows, with seeds and spread, beside its controls.

Stores of every kind with the same signals, the same splits and the same readers on all of them; on the pixels or the
D2 histograms of the signals; and on fields fitted another way (such as each from a start of its own), where the usual
fields of the same signals stand beside them. Adapters are also read without the gauge of their factors: in canonical
form, and by random sums over their products. What an earlier run finished is kept.

    python -m pipelines.probes --config configs/fashion_mnist/probes.yaml

Source: arXiv 2512.01759, section on discrimination.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.experiment import FieldExperiment, Kind, main
from pipelines.probe_figures import draw_figures
from pipelines.probe_scores import Scores, order_of, score_items
from pipelines.side_by_side import Task, made
from wsrl.errors import UserError
from wsrl.evaluation.features import labelled_rows
from wsrl.evaluation.importance import importance_scores
from wsrl.evaluation.labelled_fields import READINGS, LabelledFields, signal_kind
from wsrl.evaluation.product_space import has_products
from wsrl.evaluation.protocol import Protocol
from wsrl.options import at_least, check, option
from wsrl.store import WeightStore


@dataclass(frozen=True, kw_only=True)
class ProbedKind(Kind):
    """A representation, how its fields are fitted, and where they are.

    Attributes:
        store: Folder of the fields; None for one under ``out``.
    """

    store: str | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The same signals, or some of them, fitted another way.

    Attributes:
        source: Options of the source beside those of the experiment, such as a limit.
        kinds: Representations by name: names of the experiment's own kinds.
    """

    source: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, ProbedKind] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProbesConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        kinds: Rows of the table by name.
        main: The kind whose row of a variant stands for the variant.
        variants: Fields that are fitted another way, by name.
        readings: Without the gauge: ``canonical``, ``products``, or both; rows ``<row>.canonical``, ``<row>.products``.
        protocol: Seeds and splits of every score.
        least_members: Classes with fewer fields are left out.
        label_counts: Labelled fields of each class for the curve of label efficiency.
        important: Kinds whose tensors are looked at one by one.
        importance_train: Training fields for that, the first ones.
        importance_seeds: Seeds of that.
        mapped: Rows whose maps stand side by side: kinds, or ``<variant>.<kind>``.
        num_mapped: Fields of each map.
        map_picture: PNG file of the maps; None for none.
        curve_picture: PNG file of the label efficiency; None for none.
        importance_picture: PNG file of the importance; None for none.
        processes: Rows that are scored at one time, each with one thread; one uses all threads.
        seed: Seed of splits that the source does not have, of D2's pairs of points, and of the maps.
    """

    kinds: dict[str, ProbedKind] = field(default_factory=dict)
    main: str = "mlora_asym"
    variants: dict[str, Variant] = field(default_factory=dict)
    readings: tuple[str, ...] = ()
    protocol: Protocol = Protocol()
    least_members: int = 8
    label_counts: tuple[int, ...] = (1, 5, 10, 100)
    important: tuple[str, ...] = ()
    importance_train: int | None = None
    importance_seeds: int = 2
    mapped: tuple[str, ...] = ()
    num_mapped: int = 1500
    map_picture: str | None = None
    curve_picture: str | None = None
    importance_picture: str | None = None
    processes: int = option(1, at_least(1))
    out: str = "runs/probes"

    def __post_init__(self):
        check(self)
        unknown = [reading for reading in self.readings if reading not in READINGS]
        if unknown:
            raise UserError(f"the reading {unknown[0]!r} is unknown", allowed=", ".join(READINGS), do="choose of these")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one row of scores is read from.

    Attributes:
        name: Name of the row.
        store: Folder of the fields.
        features: What is read of them, as :meth:`LabelledFields.read` names it.
        only: A store; fields of signals that it does not have are left out.
    """

    name: str
    store: Path
    features: str = "weights"
    only: Path | None = None


def run(config: ProbesConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    stores = build(config)
    asked = asked_rows(config, stores)
    tasks = [*(importance_task(kind, stores[kind], config) for kind in config.important)]
    tasks += [scores_task(row, config) for row in asked]
    found = made(config, tasks, config.processes)
    measured = {kind: each["values"] for kind, each in zip(config.important, found)}
    rows = {row.name: Scores.from_json(each) for row, each in zip(asked, found[len(measured) :])}
    # The rows, and beside fields that are fitted another way the usual ones of the same signals.
    results: dict[str, float] = {}
    for name, scores in rows.items():
        results |= scores.entries(name)
    for name, path in stores.items():
        results |= reconstruction(name, path)
    for variant, options in config.variants.items():
        for kind in options.kinds:
            results |= rows.get(f"{variant}.{kind}.usual", rows[kind]).entries(f"{variant}.{kind}.usual")
        if config.main in options.kinds:
            results |= rows[f"{variant}.{config.main}"].entries(variant)
    # What the rows say together, and what each part of a field is worth.
    results |= order_of(rows)
    results |= {f"{kind}.importance.{key}": value for kind, values in measured.items() for key, value in values.items()}
    results |= facts(items_of(Row(name="", store=stores[next(iter(config.kinds))]), config))
    shown = [row.name for row in asked if row.features not in READINGS and row.only is None]
    draw_figures(config, stores, {name: rows[name] for name in shown}, measured)
    return results


def asked_rows(config: ProbesConfig, stores: Mapping[str, Path]) -> list[Row]:
    """Every row: the kinds, the signals themselves, the variants, and adapters without the gauge of their factors."""
    rows = []
    for name in config.kinds:
        rows += [Row(name=name, store=stores[name]), *without_gauge(name, stores[name], config)]
    with WeightStore.open(stores[name]) as store:
        control = signal_kind(store)
    rows.append(Row(name=control, store=stores[name], features=control))
    for variant, options in config.variants.items():
        for kind in options.kinds:
            row, path = f"{variant}.{kind}", stores[f"{variant}.{kind}"]
            rows += [Row(name=row, store=path), *without_gauge(row, path, config)]
            if config.variants[variant].source:  # fewer signals than in the whole row of the kind
                rows.append(Row(name=f"{row}.usual", store=stores[kind], only=path))
    return rows


def without_gauge(row: str, path: Path, config: ProbesConfig) -> list[Row]:
    """Readings of a row's adapters that the gauge of their factors does not touch; none of standalone networks."""
    with WeightStore.open(path) as store:
        readings = config.readings if has_products(store.layout) else ()
    return [Row(name=f"{row}.{reading}", store=path, features=reading) for reading in readings]


def build(config: ProbesConfig) -> dict[str, Path]:
    """The base field and every store, by the name of its rows in the record; finished ones are kept."""
    config.train_base()
    source, stores = config.open(), {}
    for name, kind in config.kinds.items():
        stores[name] = build_kind(name, kind, source, config)
    for variant, options in config.variants.items():
        some = config.open(**options.source)
        for name, kind in options.kinds.items():
            stores[f"{variant}.{name}"] = build_kind(f"{variant}/{name}", kind, some, config)
    return stores


def build_kind(name: str, kind: ProbedKind, source, config: ProbesConfig) -> Path:
    """The store of one kind."""
    out = Path(config.out) / name if kind.store is None else Path(kind.store)
    config.build(name, kind.representation, kind.fit, source=source, folder=out)
    return out


def items_of(row: Row, config: ProbesConfig) -> LabelledFields:
    """The labelled fields of a row whose classes are large enough."""
    with WeightStore.open(row.store) as store:
        labels = store.labels()
        classes, counts = np.unique(labels[labels >= 0], return_counts=True)
        kept = np.isin(labels, classes[counts >= config.least_members])
        if row.only is not None:
            with WeightStore.open(row.only) as other:
                kept &= np.isin(store.ids, other.ids)
        source = None if row.features in ("weights", *READINGS) else config.open()
        return LabelledFields.read(
            store, labelled_rows(store, config.seed).within(kept), row.features, source, config.seed
        )


def scores_task(row: Row, config: ProbesConfig) -> Task:
    """All scores of a row, by seed; those that an earlier run found by the same protocol are taken up."""
    how = asdict(config.protocol) | {"least_members": config.least_members, "counts": list(config.label_counts)}
    file = Path(config.out) / "scores" / f"{row.name}.json"
    return Task(part=f"scores.{row.name}", path=file, how=how, make=scored, arguments=(row, config))


def scored(row: Row, config: ProbesConfig) -> dict:
    """All scores of a row as plain values."""
    scores = score_items(items_of(row, config), config.protocol, config.label_counts)
    shown = {key: round(spread.mean, 3) for key, spread in scores.spreads.items()}
    print(f"{row.name}: {shown}", file=sys.stderr, flush=True)
    return scores.to_json()


def importance_task(kind: str, path: Path, config: ProbesConfig) -> Task:
    """What each tensor, layer and factor of a kind is worth, as numbers of the record."""
    how = {"train": config.importance_train, "seeds": config.importance_seeds, "least_members": config.least_members}
    file = Path(config.out) / "scores" / f"{kind}.importance.json"
    row = Row(name=f"{kind}.importance", store=path)
    return Task(part=f"importance.{kind}", path=file, how=how, make=measure, arguments=(row, config))


def measure(row: Row, config: ProbesConfig) -> dict:
    """What each tensor, layer and factor of the fields of a store is worth."""
    items = items_of(row, config)
    with WeightStore.open(row.store) as store:
        some = replace(items, train=items.train[: config.importance_train])
        return {"values": importance_scores(some, store.layout, config.importance_seeds)}


def reconstruction(name: str, path: Path) -> dict[str, float]:
    """How well the fields of a store reproduce their signals (dB), and the numbers of each."""
    with WeightStore.open(path) as store:
        psnr = float(np.nanmean(store.metrics("psnr")))
        return {f"{name}.psnr_mean": psnr, f"{name}.numbers": store.layout.num_trainable, f"{name}.num": len(store)}


def facts(items: LabelledFields) -> dict[str, float]:
    """What the scores were taken on."""
    classes, counts = np.unique(items.labels, return_counts=True)
    return {
        "run.num_train": len(items.train),
        "run.num_test": len(items.test),
        "run.num_classes": len(classes),
        "run.classes": ", ".join(items.label_names[number] for number in classes),
        "run.majority": float(counts.max() / counts.sum()),
    }


if __name__ == "__main__":
    sys.exit(main(run))
