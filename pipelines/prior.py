"""Fits under a prior: how close they are, how smooth in the signal, and what that costs, by strength and steps.

One base field, one store per row; of each the quality of held-out fields, how far they are from real signals, what a
Gaussian of their weights is worth, what a linear reader reads, how smooth the weights are in the signal, and the time
of a fit. All rows are fitted to the same signals. The row that is chosen by these scores is scored once more on
signals that no choice was made on.

    python -m pipelines.prior --config configs/fashion_mnist/prior.yaml
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipelines.experiment import FieldExperiment, Kind, fingerprint, main
from wsrl.cli.parser import show_progress
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.features import labelled_rows, pixel_features, weight_features
from wsrl.evaluation.generation import GenerationOptions
from wsrl.evaluation.labelled_fields import LabelledFields
from wsrl.evaluation.memorisation import train_gaussian
from wsrl.evaluation.probe import logistic_probe, one_nn
from wsrl.evaluation.references import Comparison
from wsrl.evaluation.smoothness import linear_r2, spectrum
from wsrl.fields import BaseField, Representation
from wsrl.fitting.engine import fit, read_signals
from wsrl.signals.signal import grid_coords
from wsrl.signals.source import training_indices
from wsrl.store import WeightStore
from wsrl.store.source import open_store_source

SCORES = ("fd", "recall", "precision", "mmd_cd", "coverage_cd", "one_nn_cd")
TEST = "test"
COARSE = (12, 12, 12)
"""Grid on which a shape's field stands for its signal, whose own points are others for every shape."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig(FieldExperiment):
    """The whole experiment; its numbers go into a record that several data sets share.

    Attributes:
        kinds: Rows by name: a representation and its fit.
        scores: Fields of ``GenerationOptions``.
        num_timed: Signals whose fits are timed, one row after the other in one run.
        chosen: Row that is scored once more as ``test``; None for none.
        test_source: Options of the source for that, beside those of the experiment: those of its held-out signals
            that the other rows were not scored on are what counts.
    """

    record: ClassVar[str] = "representations/prior"

    kinds: dict[str, Kind] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    num_timed: int = 96
    chosen: str | None = None
    test_source: dict[str, Any] = field(default_factory=dict)
    out: str = "runs/prior"

    def __post_init__(self):
        if self.chosen is not None and self.chosen not in self.kinds:
            raise UserError(f"chosen is {self.chosen!r}", allowed=", ".join(self.kinds) or "none", do="name a row")


def run(config: PriorConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    results = config.train_base()
    for name, kind in config.kinds.items():
        config.build(name, kind.representation, kind.fit)
        results |= scored(name, config)
    if config.chosen is not None:
        kind = config.kinds[config.chosen]
        config.build(TEST, kind.representation, kind.fit, source=config.open(**config.test_source))
        results |= scored(TEST, config)
    rows = fingerprint([str(config.kinds), config.num_timed])
    times = config.kept("times", Path(config.out) / "times.json", lambda: time_rows(config), rows)
    return results | times


def scored(name: str, config: PriorConfig) -> dict[str, float]:
    """The scores of one row; those that an earlier run found are kept."""
    path, how = Path(config.out) / f"{name}.scores.json", fingerprint([config.scores, config.seed])
    scores = config.kept(f"scores.{name}", path, lambda: measure(name, config), how)
    print(name, {key: round(value, 3) for key, value in scores.items()}, file=sys.stderr, flush=True)
    return {f"{name}.{key}": value for key, value in scores.items()}


def unseen(comparison: Comparison, config: PriorConfig) -> Comparison:
    """The comparison without the held-out fields of signals that the rows were chosen on."""
    with WeightStore.open(Path(config.out) / next(iter(config.kinds))) as store:
        known = set(store.ids)
    train, heldout = comparison.rows
    new = np.array([comparison.store.id_of(int(row)) not in known for row in heldout])
    fields = {name: tensor[torch.from_numpy(new)] for name, tensor in comparison.fields.heldout.items()}
    return replace(comparison, rows=(train, heldout[new]), fields=replace(comparison.fields, heldout=fields))


def measure(name: str, config: PriorConfig) -> dict[str, float]:
    """All that is known of the fields of one row but their time."""
    options = GenerationOptions(**{"seed": config.seed, "num": 1000} | config.scores)
    with WeightStore.open(Path(config.out) / name) as store:
        decoder = FieldDecoder.from_store(store)
        comparison = Comparison.of(store, decoder, options, show_progress)
        comparison = unseen(comparison, config) if name == TEST else comparison
        known, judge = comparison.fields, comparison.references.judge
        scores = {"num_trainable": store.layout.num_trainable, "num_train": len(comparison.rows[0])}
        scores |= {"num_heldout": len(comparison.rows[1])}
        # How close the held-out fields are to their signals, and to the real ones as a set.
        psnr = store.metrics("psnr")[comparison.rows[1]]
        scores |= {"psnr": float(psnr.mean()), "psnr_5th": float(np.percentile(psnr, 5)), "psnr_min": float(psnr.min())}
        scores |= _prefixed("fitted", judge(known.heldout).metrics)
        # What a Gaussian of the training fields' weights is worth.
        generator = torch.Generator().manual_seed(config.seed)
        train, trainable = store.layout.flatten(known.train), store.layout.trainable()
        drawn = store.layout.unflatten(train_gaussian(train, trainable, options.num, generator))
        scores |= _prefixed("gaussian", judge(drawn).metrics)
        return scores | probes(store, config.seed) | smoothness(store, comparison)


def _prefixed(row: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{row}_{key}": metrics[key] for key in SCORES if key in metrics}


def probes(store: WeightStore, seed: int) -> dict[str, float]:
    """Accuracy of logistic regression and of the nearest neighbour on the weights."""
    split = LabelledFields.read(store, labelled_rows(store, seed)).split()
    return {"logistic": logistic_probe(split, seed), "one_nn": one_nn(split)}


def smoothness(store: WeightStore, comparison: Comparison) -> dict[str, float]:
    """Spectrum of the weights, and how much of them a linear map of the signals predicts for held-out fields."""
    train, heldout = (weight_features(store, rows) for rows in comparison.rows)
    if store.form.is_shape:
        fields = (comparison.fields.train, comparison.fields.heldout)
        signals = tuple(comparison.fields.decoder.decode(part, grid_coords(COARSE)).flatten(1) for part in fields)
    else:
        source = open_store_source(store)
        signals = tuple(pixel_features(store, source, rows) for rows in comparison.rows)
    return spectrum(train) | {"r2_from_signal": linear_r2(_pair(signals), (train, heldout))}


def _pair(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    first, second = tensors
    return first, second


def time_rows(config: PriorConfig) -> dict[str, float]:
    """Milliseconds per field of every row, on one thread, one row after the other."""
    source, threads = config.open(), torch.get_num_threads()
    base = BaseField.from_pretrained(config.base_folder)
    some = training_indices(source)[: config.num_timed]
    signals = list(read_signals(source, some))
    torch.set_num_threads(1)
    times = {}
    for name, kind in config.kinds.items():
        representation = Representation.build(kind.representation, base, **source.form.sizes)
        list(fit(representation, signals[:8], kind.fit))  # compiled and warm
        started = time.perf_counter()
        list(fit(representation, signals, kind.fit))
        times[f"{name}.ms_per_field"] = 1000 * (time.perf_counter() - started) / len(signals)
    torch.set_num_threads(threads)
    return times


if __name__ == "__main__":
    sys.exit(main(run))
