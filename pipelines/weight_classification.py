"""How well the class of a picture is read from the weights of its field, by every encoder.

    python -m pipelines.weight_classification --config configs/fashion_mnist/weight_classification_random_siren.yaml

One zoo of fields, one training of every encoder and seed on it, and the same perceptron on the pixels of the same
pictures. Validation fields are held out of the training split; the best epoch on them is tested.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.experiment import Experiment, FieldExperiment, fingerprint, main
from pipelines.pixels import pixel_store
from wsrl.cli.parser import show_progress
from wsrl.fields import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.store import WeightStore
from wsrl.training.base_field import BaseTrainingConfig
from wsrl.training.run import train
from wsrl.training.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class WeightClassificationConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        representation: What the weights are.
        fit: How fields are fitted.
        base: Training of the base field of adapters; None where there is none.
        common: Options of ``wsrl train classifier`` of all rows by dotted name.
        encoders: Options of each row by dotted name, those of ``pixels`` for the pictures themselves.
        seeds: Number of trainings of each row.
        more_seeds: Rows with another number of trainings.
    """

    representation: RepresentationConfig = RepresentationConfig()
    fit: FitConfig = FitConfig()
    base: BaseTrainingConfig | None = None
    common: dict[str, Any] = field(default_factory=dict)
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: int = 1
    more_seeds: dict[str, int] = field(default_factory=dict)
    out: str = "runs/weight_classification"

    def num_seeds(self, row: str) -> int:
        """Number of trainings of a row."""
        return self.more_seeds.get(row, self.seeds)


def run(config: WeightClassificationConfig) -> dict[str, float]:
    """Build the zoo, train every row; parts that an earlier run finished are kept."""
    out = Path(config.out)
    source = config.open()
    if config.base is not None:
        config.train_base()
    config.build("zoo", config.representation, config.fit, source=source, folder=out / "fields")
    if "pixels" in config.encoders:
        pixel_store(source, out / "pixels")
    results = counts(out / "fields")
    for row, options in config.encoders.items():
        store = out / ("pixels" if row == "pixels" else "fields")
        scores = [trained(config, row, seed, config.common | options, store) for seed in range(config.num_seeds(row))]
        results |= summary(row, [score["classifier.test_accuracy"] for score in scores])
        print(f"{row}: {results[f'{row}.accuracy']:.4f}", file=sys.stderr, flush=True)
    return results


def counts(directory: Path) -> dict[str, float]:
    """Numbers of fields, and how good they are as pictures."""
    with WeightStore.open(directory) as store:
        splits, psnr = store.splits(), store.metrics("psnr")
        return {
            "run.num_train": int((splits == "train").sum()),
            "run.num_test": int((splits == "test").sum()),
            "fields.numbers": store.layout.num_trainable,
            "fields.test_psnr_mean": float(psnr[splits == "test"].mean()),
        }


def trained(config: Experiment, row: str, seed: int, options: dict[str, Any], store: Path) -> dict[str, float]:
    """Metrics of one training; a finished one with the same options is taken up."""
    root = Path(config.out) / "encoders" / f"{row}-{seed}-{fingerprint(options)}"
    training = TrainOptions(store=store, out=root, seed=seed).changed(options)
    make = lambda: train("classifier", training, progress=show_progress).metrics  # noqa: E731
    return config.kept(f"encoders.{row}-{seed}", root / "scores.json", make)


def summary(row: str, accuracies: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation over seeds where there are several, and their number."""
    scores = {f"{row}.accuracy": statistics.fmean(accuracies), f"{row}.accuracy_seeds": len(accuracies)}
    if len(accuracies) > 1:
        scores[f"{row}.accuracy_std"] = statistics.stdev(accuracies)
    return scores


if __name__ == "__main__":
    sys.exit(main(run))
