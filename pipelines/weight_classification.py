"""How well the class of a picture is read from the weights of its field, by every encoder.

    python -m pipelines.weight_classification --config configs/fashion_mnist/weight_classification_random_siren.yaml

One zoo of fields, one training of every encoder and seed on it, and the same perceptron on the pixels of the same
pictures. Validation fields are held out of the training split; the best epoch on them is tested.
"""

import hashlib
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import command
from pipelines.pixels import pixel_store
from wsrl.cli.base import train_base
from wsrl.cli.build import BuildPlan, build_store
from wsrl.cli.train import train
from wsrl.fields import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import merge_metrics
from wsrl.signals import open_source
from wsrl.store import WeightStore
from wsrl.training.base_field import BaseTrainingConfig


@dataclass(frozen=True, kw_only=True)
class WeightClassificationConfig:
    """The whole experiment.

    Attributes:
        name: Name of the record: that of the zoo.
        data: Named source or folder.
        source: Options of the source.
        representation: What the weights are.
        fit: How fields are fitted.
        base: Training of the base field of adapters; None where there is none.
        base_source: Options of the source of the base field.
        base_dir: Folder of the base field.
        common: Options of ``wsrl train classifier`` of all rows by dotted name.
        encoders: Options of each row by dotted name, those of ``pixels`` for the pictures themselves.
        seeds: Number of trainings of each row.
        more_seeds: Rows with another number of trainings.
        out: Folder for stores and models.
    """

    name: str
    data: str
    source: dict[str, Any] = field(default_factory=dict)
    representation: RepresentationConfig = RepresentationConfig()
    fit: FitConfig = FitConfig()
    base: BaseTrainingConfig | None = None
    base_source: dict[str, Any] = field(default_factory=dict)
    base_dir: str | None = None
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
    source = open_source(config.data, **config.source)
    if config.base is not None:
        train_base(open_source(config.data, **config.base_source), config.base, Path(config.base_dir))
    plan = BuildPlan(representation=config.representation, fit=config.fit, base=config.base_dir)
    build_store(source, plan, out / "fields", command=f"python -m pipelines.weight_classification (zoo {config.name})")
    if "pixels" in config.encoders:
        pixel_store(source, out / "pixels")
    results = counts(out / "fields")
    for row, options in config.encoders.items():
        store = out / ("pixels" if row == "pixels" else "fields")
        scores = [trained(row, seed, config.common | options, store, out) for seed in range(config.num_seeds(row))]
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


def trained(row: str, seed: int, options: dict[str, Any], store: Path, out: Path) -> dict[str, float]:
    """Metrics of one training; a finished one with the same options is taken up."""
    text = json.dumps(options, sort_keys=True)
    root = out / "encoders" / f"{row}-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    done = root / "scores.json"
    if done.exists():
        return json.loads(done.read_text())
    fixed = [f"--data.store={store}", f"--trainer.default_root_dir={root}", f"--seed_everything={seed}"]
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    metrics = train("classifier", [*fixed, *(f"--{key}={value}" for key, value in plain.items())])
    merge_metrics(done, metrics)
    return metrics


def summary(row: str, accuracies: Sequence[float]) -> dict[str, float]:
    """Mean, deviation over seeds where there are several, and their number."""
    found = {f"{row}.accuracy": statistics.fmean(accuracies), f"{row}.accuracy_seeds": len(accuracies)}
    if len(accuracies) > 1:
        found[f"{row}.accuracy_std"] = statistics.stdev(accuracies)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment and write its record."""
    command.record_of(make_parser(), WeightClassificationConfig, run, argv)
    return 0


def make_parser():
    """The parser of the command line."""
    return command.make_parser("weight_classification", WeightClassificationConfig, __doc__)


if __name__ == "__main__":
    sys.exit(main())
