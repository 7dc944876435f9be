"""The representations side by side: how well they fit, and how much of the class can be read from their weights.

One base field, one sweep of learning rates per kind on training pictures, one store per kind, then the same two
readers on the weights of each and on the pixels: logistic regression and a small Lightning classifier.

    python -m pipelines.representations --config configs/fashion_mnist/representations.yaml

Source: arXiv 2512.01759, tables 1 and 2.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pipelines.experiment import FieldExperiment, SweptKind, best_rate, main
from pipelines.pixels import pixel_store
from wsrl.cli.parser import show_progress
from wsrl.evaluation.features import labelled_rows
from wsrl.evaluation.labelled_fields import LabelledFields
from wsrl.evaluation.probe import logistic_probe, one_nn
from wsrl.fitting.engine import FitConfig
from wsrl.signals.source import training_indices
from wsrl.store import WeightStore
from wsrl.training.run import train
from wsrl.training.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class RepresentationsConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        kinds: Rows of the table by name.
        fit: How fields are fitted; each kind brings its own learning rate.
        num_sweep: Training signals that each rate of the sweep is tried on.
        sweep_only: Stop after the sweep: no stores, no readers.
        classifier: Options of ``wsrl train classifier`` by dotted name.
    """

    kinds: dict[str, SweptKind] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    num_sweep: int = 128
    sweep_only: bool = False
    classifier: dict[str, Any] = field(default_factory=dict)
    out: str = "runs/representations"


def run(config: RepresentationsConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    out, source = Path(config.out), config.open()
    results = config.train_base()
    # The last ones: unlike the first, the base field may not have been trained on them.
    tried = training_indices(source)[-config.num_sweep :]
    for name, kind in config.kinds.items():
        best, swept = best_rate(config, source, tried, name, kind, config.fit)
        results |= swept
        if config.sweep_only:
            continue
        config.build(name, kind.representation, replace(config.fit, learning_rate=best), source=source)
        results |= score(name, config)
        print(json.dumps({k: v for k, v in results.items() if k.startswith(f"{name}.")}), file=sys.stderr, flush=True)
    if not config.sweep_only:
        pixel_store(source, out / "pixels")
        results |= score("pixels", config)
    return results


def score(name: str, config: RepresentationsConfig) -> dict[str, float]:
    """Scores of one store; those that an earlier run found are kept."""
    out = Path(config.out)
    return config.kept(f"scores.{name}", out / f"{name}.scores.json", lambda: measure(name, out, config))


def measure(name: str, out: Path, config: RepresentationsConfig) -> dict[str, float]:
    """Reconstruction, logistic regression, nearest neighbour and classifier of one store."""
    torch.manual_seed(config.seed)
    with WeightStore.open(out / name) as store:
        split = LabelledFields.read(store, labelled_rows(store, config.seed)).split()
        results = {
            f"{name}.num_trainable": store.layout.num_trainable,
            f"{name}.logistic": logistic_probe(split, config.seed),
            f"{name}.one_nn": one_nn(split),
            "run.num_train": len(split.train),
            "run.num_test": len(split.test),
        }
        if "psnr" in store.metric_names:
            results |= reconstruction(name, store)
    root = out / f"{name}.classifier"
    options = TrainOptions(store=out / name, out=root, seed=config.seed).changed(config.classifier)
    model = train("classifier", options, progress=show_progress)
    results[f"{name}.classifier"] = model.metrics["classifier.test_accuracy"]
    return results


def reconstruction(name: str, store: WeightStore) -> dict[str, float]:
    """PSNR and SSIM of the test fields."""
    test = store.splits() == "test"
    scores = {}
    for metric in ("psnr", "ssim"):
        values = store.metrics(metric)[test]
        scores[f"{name}.test_{metric}_mean"] = float(values.mean())
        scores[f"{name}.test_{metric}_std"] = float(values.std())
        scores[f"{name}.test_{metric}_min"] = float(values.min())
    return scores


if __name__ == "__main__":
    sys.exit(main(run))
