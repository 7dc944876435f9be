"""The representations side by side: how well they fit, and how much of the class can be read from their weights.

One base field, one sweep of learning rates per kind on training pictures, one store per kind, then the same two
readers on the weights of each and on the pixels: logistic regression and a small Lightning classifier.

    python -m pipelines.representations --config configs/fashion_mnist/representations.yaml

Source: arXiv 2512.01759, tables 1 and 2.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pipelines import command
from pipelines.kind_config import KindConfig, best_rate, sweep
from pipelines.pixels import pixel_store
from wsrl.cli.base import train_base, training_indices
from wsrl.cli.build import BuildPlan, build_store
from wsrl.cli.train import train
from wsrl.evaluation.features import labelled_rows, weight_features
from wsrl.evaluation.probe import logistic_probe, one_nn
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import merge_metrics
from wsrl.signals import open_source
from wsrl.store import WeightStore
from wsrl.training.base_field import BaseTrainingConfig


@dataclass(frozen=True, kw_only=True)
class RepresentationsConfig:
    """The whole experiment.

    Attributes:
        name: Name of the record.
        data: Named source or folder.
        source: Options of the source.
        base: Training of the base field.
        kinds: Rows of the table by name.
        fit: How fields are fitted; each kind brings its own learning rate.
        num_sweep: Training signals that each rate of the sweep is tried on.
        sweep_only: Stop after the sweep: no stores, no readers.
        classifier: Options of ``wsrl train classifier`` by dotted name.
        out: Folder for base, stores and models.
        seed: Seed of the readers.
    """

    name: str
    data: str
    source: dict[str, Any] = field(default_factory=dict)
    base: BaseTrainingConfig = BaseTrainingConfig()
    kinds: dict[str, KindConfig] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    num_sweep: int = 128
    sweep_only: bool = False
    classifier: dict[str, Any] = field(default_factory=dict)
    out: str = "runs/representations"
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; parts that an earlier run finished are kept."""
    command.record_of(make_parser(), RepresentationsConfig, run, argv)
    return 0


def make_parser():
    """The parser of the command line."""
    return command.make_parser("representations", RepresentationsConfig, __doc__)


def run(config: RepresentationsConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    out, source = Path(config.out), open_source(config.data, **config.source)
    results = train_base(source, config.base, out / "base")
    # The last ones: unlike the first, the base field may not have been trained on them.
    tried = training_indices(source)[-config.num_sweep :]
    for name, kind in config.kinds.items():
        best, found = best_rate(name, sweep(source, tried, out, name, kind, config.fit))
        results |= found
        if config.sweep_only:
            continue
        plan = BuildPlan(
            representation=kind.representation, fit=replace(config.fit, learning_rate=best), base=out / "base"
        )
        build_store(source, plan, out / name, command=f"python -m pipelines.representations (kind {name})")
        results |= score(name, out, config)
        print(json.dumps({k: v for k, v in results.items() if k.startswith(f"{name}.")}), file=sys.stderr, flush=True)
    if not config.sweep_only:
        pixel_store(source, out / "pixels")
        results |= score("pixels", out, config)
    return results


def score(name: str, out: Path, config: RepresentationsConfig) -> dict[str, float]:
    """Reconstruction, logistic regression, nearest neighbour and classifier of one store."""
    done = out / f"{name}.scores.json"
    if done.exists():
        return json.loads(done.read_text())
    torch.manual_seed(config.seed)
    with WeightStore.open(out / name) as store:
        parts = labelled_rows(store, config.seed)
        features = [weight_features(store, rows).numpy() for rows in (parts.train, parts.test)]
        labels = [parts.labels[rows] for rows in (parts.train, parts.test)]
        results = {
            f"{name}.num_trainable": store.layout.num_trainable,
            f"{name}.logistic": logistic_probe(features[0], labels[0], features[1], labels[1], config.seed),
            f"{name}.one_nn": one_nn(features[0], labels[0], features[1], labels[1]),
            "run.num_train": len(parts.train),
            "run.num_test": len(parts.test),
        }
        if "psnr" in store.metric_names:
            results |= reconstruction(name, store)
    root = out / f"{name}.classifier"
    options = [f"--{key}={json.dumps(value)}" for key, value in config.classifier.items()]
    fixed = [f"--data.store={out / name}", f"--trainer.default_root_dir={root}", f"--seed_everything={config.seed}"]
    results[f"{name}.classifier"] = train("classifier", [*fixed, *options])["classifier.test_accuracy"]
    merge_metrics(done, results)
    return results


def reconstruction(name: str, store: WeightStore) -> dict[str, float]:
    """PSNR and SSIM of the test fields."""
    test = store.splits() == "test"
    found = {}
    for metric in ("psnr", "ssim"):
        values = store.metrics(metric)[test]
        found[f"{name}.test_{metric}_mean"] = float(values.mean())
        found[f"{name}.test_{metric}_std"] = float(values.std())
        found[f"{name}.test_{metric}_min"] = float(values.min())
    return found


if __name__ == "__main__":
    sys.exit(main())
