"""A zoo of fields that each start from random weights of their own, made canonical, and what a perceptron then reads.

    python -m pipelines.zoo_alignment --config configs/fashion_mnist/zoo_alignment.yaml

The zoo is fitted once and aligned in several ways; the same flat perceptron learns the class of the pictures from each
form of it, and other readers from the forms that they are asked for.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipelines.experiment import FieldExperiment, is_complete, main
from pipelines.weight_classification import counts, trained
from wsrl.evaluation.features import labelled_rows
from wsrl.evaluation.labelled_fields import LabelledFields
from wsrl.evaluation.retrieval import precision_at_k
from wsrl.fields import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import write_json_atomic
from wsrl.report.figures import Series, draw_bars, draw_lines, new_figure, save_figure
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.store.aligned import AlignConfig, align_fields
from wsrl.store.rewriting import AlignedFields

UNALIGNED, ALIGNED = "unaligned", "aligned"
NUM_CHECKED = 256


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One kind of classifier.

    Attributes:
        options: Options of ``wsrl train classifier`` by dotted name.
        forms: Forms of the zoo that it learns from.
        seeds: Number of trainings on each form.
    """

    options: dict[str, Any] = field(default_factory=dict)
    forms: tuple[str, ...] = (UNALIGNED, ALIGNED)
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class ZooConfig(FieldExperiment):
    """The experiment.

    Attributes:
        representation: What the weights are.
        fit: How fields are fitted.
        alignments: Ways to align the zoo, by the name of the form that they make; there is one of the name aligned.
        common: Options of ``wsrl train classifier`` of all readers by dotted name.
        readers: The classifiers.
        neighbours: Numbers of neighbours at which retrieval is scored.
        figure: File of the figure; None for none.
    """

    representation: RepresentationConfig = RepresentationConfig()
    fit: FitConfig = FitConfig()
    alignments: dict[str, AlignConfig] = field(default_factory=lambda: {ALIGNED: AlignConfig()})
    common: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    neighbours: tuple[int, ...] = (1, 8)
    figure: str | None = None
    out: str = "runs/alignment/zoo"


def run(config: ZooConfig) -> dict[str, float]:
    """Fit the zoo, align it, train every reader; parts that an earlier run finished are kept.

    Returns:
        ``<reader>.<form>``: test accuracy (mean over seeds, with ``_seeds`` and where there are several ``_std``);
        ``retrieval.<form>.precision_at_<k>``: share of test fields' nearest training fields that are of their class;
        ``fields_per_s``: fields aligned in a second of one process's computing, ``fields_per_s_wall`` by the clock;
        ``<form>.distance_before`` and ``_after``: mean squared distance to the template, ``<form>.largest_change``: of
        a value of a field, in float64.
    """
    out = Path(config.out)
    forms = {UNALIGNED: out / "fields"} | {name: out / name for name in config.alignments}
    config.build("zoo", config.representation, config.fit, folder=forms[UNALIGNED])
    results = counts(forms[UNALIGNED])
    for name, alignment in config.alignments.items():
        results |= aligned(name, forms, alignment, config)
    for name, path in forms.items():
        results |= retrieval(name, path, config.neighbours)
    for name, reader in config.readers.items():
        for form in reader.forms:
            results |= accuracy(name, form, forms[form], reader, config)
    if config.figure:
        draw(results, config, list(forms))
    return results


def aligned(name: str, forms: dict[str, Path], alignment: AlignConfig, config: ZooConfig) -> dict[str, float]:
    """Align the zoo in one way; the time of the run that did it is kept beside the store."""
    path = forms[name]
    kept = path.with_name(f"{name}.json")
    with config.parts.timed(f"alignments.{name}", there=is_complete(path)):
        done = align_fields(forms[UNALIGNED], path, alignment)
    if done.num_fields:
        write_json_atomic(kept, asdict(done))
    done = AlignedFields(**json.loads(kept.read_text()))
    results = {
        f"{name}.distance_before": done.before,
        f"{name}.distance_after": done.after,
        f"{name}.largest_change": largest_change(forms[UNALIGNED], path),
    }
    if name == ALIGNED:
        results["fields_per_s"] = done.num_fields / done.cpu_s
        results["fields_per_s_wall"] = done.num_fields / done.elapsed_s
    return results


def largest_change(before: Path, after: Path) -> float:
    """Largest change, in float64, of a value of the first fields on the grid of their signals."""
    with WeightStore.open(before) as one, WeightStore.open(after) as other:
        coords = grid_coords(one.form.grid).double()
        compared = [next(iter(store.batches(NUM_CHECKED))).weights for store in (one, other)]
        old, new = (
            one.representation.evaluate({name: tensor.double() for name, tensor in weights.items()}, coords)
            for weights in compared
        )
    return float((old - new).abs().max())


def retrieval(name: str, path: Path, neighbours: Sequence[int]) -> dict[str, float]:
    """Precision of the training fields nearest to each test field."""
    with WeightStore.open(path) as store:
        split = LabelledFields.read(store, labelled_rows(store, seed=0)).split()
    precision = precision_at_k(split.train, split.train_labels, neighbours, queries=(split.test, split.test_labels))
    return {f"retrieval.{name}.precision_at_{k}": share for k, share in precision.items()}


def accuracy(name: str, form: str, store: Path, reader: Reader, config: ZooConfig) -> dict[str, float]:
    """Test accuracy of one reader on one form of the zoo."""
    options, key = config.common | reader.options, f"{name}.{form}"
    metrics = [trained(config, key, seed, options, store) for seed in range(reader.seeds)]
    accuracies = [each["classifier.test_accuracy"] for each in metrics]
    print(f"{key}: {statistics.fmean(accuracies):.4f}", file=sys.stderr, flush=True)
    spread = {f"{key}_std": statistics.stdev(accuracies)} if len(accuracies) > 1 else {}
    return {key: statistics.fmean(accuracies), f"{key}_seeds": len(accuracies), **spread}


def draw(results: dict[str, float], config: ZooConfig, forms: Sequence[str]) -> None:
    """Accuracies as bars beside the precision of retrieval."""
    figure, (left, right) = new_figure(1, 2)
    bars, errors = {}, {}
    for name in config.readers:
        bars[name] = [100 * results.get(f"{name}.{form}", torch.nan) for form in forms]
        errors[name] = [100 * results.get(f"{name}.{form}_std", 0.0) for form in forms]
    titles = [form.replace("_", "\n") for form in forms]
    draw_bars(left, titles, bars, "test accuracy (%)", errors, title="Class read from the weights of a field")
    left.axhline(10, color="black", linewidth=0.8, linestyle=":")
    lines = {
        form: Series(
            config.neighbours, [100 * results[f"retrieval.{form}.precision_at_{k}"] for k in config.neighbours]
        )
        for form in forms
    }
    title = "Nearest training fields of test fields"
    draw_lines(right, lines, "neighbours k", "of the same class (%)", title=title, log_x=True)
    right.axhline(10, color="black", linewidth=0.8, linestyle=":")
    save_figure(figure, Path(config.figure))


if __name__ == "__main__":
    sys.exit(main(run))
