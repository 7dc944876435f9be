"""The representations side by side on shapes: how well they reproduce surfaces, what their weights say of the class.

Shapes are prepared, a base field is trained, one kind is fitted to all shapes and every kind to the held-out ones (the
split ``test``), each at the best learning rate of a sweep on training shapes. All kinds are scored on the same held-out
shapes. What an earlier run finished is kept.

    python -m pipelines.shapes --config configs/solids/shapes.yaml
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.benchmark_meshing import compare
from pipelines.experiment import FieldExperiment, main
from pipelines.shape_pictures import draw_shapes
from pipelines.shape_scores import ScoreTask, score_in_processes
from pipelines.sweep import Choice, SweptKind, choose, fitted_psnr
from wsrl.cli.parser import show_progress
from wsrl.errors import UserError
from wsrl.evaluation.features import d2_features, weight_features
from wsrl.evaluation.probe import NUM_FOLDS, Split, cross_validated_logistic, logistic_probe
from wsrl.evaluation.shape_reconstruction import summarise_scores
from wsrl.fields import BaseField
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import merge_metrics
from wsrl.signals.shapes.shape import VERDICTS
from wsrl.signals.source import Source, prepare_signals, training_indices
from wsrl.store import WeightStore

HELDOUT = "test"


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        data: Named source or folder of shapes with the splits ``train`` and ``test``.
        kinds: Rows of the table by name.
        on_all: The kind that is fitted to all shapes.
        fit: How fields are fitted; each kind brings its own learning rate.
        num_heldout: The first so many shapes of the split ``test`` are the held-out ones; None for all of them.
        num_sweep: Training shapes that each rate of the sweep is tried on.
        resolution: Cells of the scored meshes along a side of the cube.
        num_points: Points on either surface for the scores.
        least_members: Classes with fewer held-out shapes are left out of the probes.
        num_meshed: Fields whose meshes are made on the whole grid too.
        num_shown: Held-out shapes in the picture.
        processes: Processes that prepare and score.
        picture: PNG file of the picture for the README; None for none.
    """

    kinds: dict[str, SweptKind] = field(default_factory=dict)
    on_all: str = "mlora_asym"
    fit: FitConfig = FitConfig()
    num_heldout: int | None = None
    num_sweep: int = 24
    resolution: int = 128
    num_points: int = 20_000
    least_members: int = 8
    num_meshed: int = 16
    num_shown: int = 8
    processes: int = 2
    out: str = "runs/shapes"
    picture: str | None = None

    def __post_init__(self):
        if self.least_members < NUM_FOLDS:
            wrong = f"least_members is {self.least_members}"
            raise UserError(wrong, allowed=f"{NUM_FOLDS} or more: one for each fold", do="raise it")


def run(config: ShapesConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    out = Path(config.out)
    whole, heldout = config.open(), config.open(**heldout_options(config))
    results, usable = prepare(whole)
    results |= config.train_base()
    # The last ones: unlike the first, the base field may not have been trained on them.
    tried = [index for index in training_indices(whole) if index in set(usable)][-config.num_sweep :]
    for name, kind in config.kinds.items():
        base = BaseField.from_pretrained(config.base_folder) if kind.representation.is_adapter else None
        how = [whole.description, tried, None if base is None else base.sha256()]
        choice = choose(config, name, kind, config.fit, fitted_psnr(whole, tried, base), how=how)
        results |= choice.numbers(name)
        source = whole if name == config.on_all else heldout
        results |= build(name, source, choice, config)
        file = out / f"{name}.scores.json"
        results |= config.kept(f"scores.{name}", file, lambda name=name: score(name, heldout, config))
        print(json.dumps({k: v for k, v in results.items() if k.startswith(f"{name}.")}), file=sys.stderr, flush=True)
    results |= config.kept("scores.d2", out / "d2.scores.json", lambda: geometric_baseline(heldout, config))
    results |= config.kept("meshing", out / "meshing.json", lambda: meshing(config))
    draw_shapes(heldout, out, list(config.kinds), config.num_shown, config.resolution, config.picture)
    return results


def heldout_options(config: ShapesConfig) -> dict[str, Any]:
    """Options of the source, beside those of the experiment, that leave the held-out shapes alone."""
    limit = {} if config.num_heldout is None else {"limit": config.num_heldout}
    return {"split": HELDOUT, **limit}


def prepare(source) -> tuple[dict[str, float], list[int]]:
    """Prepare every shape; how many can be used, how long one took, and the indices of the usable ones."""
    prepare_signals(source, range(len(source)), show_progress)
    records = [source.record(index) for index in range(len(source))]
    verdicts = Counter(record.verdict for record in records)
    usable = [index for index, record in enumerate(records) if record.verdict != "rejected"]
    if not usable:
        reason = "; ".join(records[0].reasons) if records else "there are none"
        raise UserError(f"no shape of {source.name} can be used: {reason}", do="look at wsrl data prepare")
    seconds = [records[index].quality["seconds"] for index in usable]
    counts = {f"signals.{verdict}": verdicts[verdict] for verdict in VERDICTS}
    return counts | {"sampling.seconds_median": float(np.median(seconds))}, usable


def meshing(config: ShapesConfig) -> dict[str, float]:
    """How many times as long the whole grid takes as coarse to fine, on some fields of all shapes; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with WeightStore.open(Path(config.out) / config.on_all) as store:
        rows = range(0, len(store), max(1, len(store) // config.num_meshed))[: config.num_meshed]
        comparisons = [compare(store.field(row), config.resolution) for row in rows]
    torch.set_num_threads(threads)
    ratios = [each.dense_s / each.coarse_s for each in comparisons]
    return {
        f"meshing.ratio_dense_{config.resolution}": float(np.median(ratios)),
        "meshing.num_equal": sum(each.equal for each in comparisons),
        "meshing.num": len(comparisons),
    }


def build(name: str, source: Source, choice: Choice, config: ShapesConfig) -> dict[str, float]:
    """Fit a kind; seconds per field of the run that fitted most of them."""
    done = Path(config.out) / f"{name}.build.json"
    before, started = num_fields(Path(config.out) / name), time.monotonic()
    store = config.build(name, choice.representation, choice.fit, source=source)
    fitted, elapsed = len(store) - before, time.monotonic() - started
    known = json.loads(done.read_text()) if done.exists() else {f"{name}.num_timed": 0}
    if fitted > known[f"{name}.num_timed"]:
        known = {f"{name}.num_timed": fitted, f"{name}.fit_s_per_field": elapsed / fitted}
        merge_metrics(done, known)
    return {f"{name}.fit_s_per_field": known[f"{name}.fit_s_per_field"], f"{name}.num_failed": len(store.failures)}


def num_fields(directory: Path) -> int:
    """Fields of a store that may not be there yet."""
    if not (directory / "manifest.json").is_file():
        return 0
    with WeightStore.open(directory, partial=True) as store:
        return len(store)


def score(name: str, heldout: Source, config: ShapesConfig) -> dict[str, float]:
    """Surfaces of the held-out fields of a kind, and what a probe reads from their weights."""
    out = Path(config.out)
    options = config.source | ({} if name == config.on_all else heldout_options(config))
    how = {"resolution": config.resolution, "num_points": config.num_points, "seed": config.seed}
    task = ScoreTask(store=str(out / name), data=config.data, source=options, **how)
    with WeightStore.open(out / name) as store:
        parts = parts_of(store, heldout)
        rows = np.flatnonzero(parts == HELDOUT)
        scores = score_in_processes(task, rows, config.processes)
        each = {"id": [store.id_of(int(row)) for row in rows]} | {key: value.tolist() for key, value in scores.items()}
        merge_metrics(out / f"{name}.shapes.json", each)
        numbers = summarise_scores(scores, np.full(len(rows), ""))
        numbers |= {"num_trainable": store.layout.num_trainable, "psnr": float(store.metrics("psnr")[rows].mean())}
        features = weight_features(store, np.arange(len(store))).numpy()
        numbers |= read_classes(features, store.labels(), parts, config)
    return {f"{name}.{key}": value for key, value in numbers.items()}


def parts_of(store: WeightStore, heldout: Source) -> np.ndarray:
    """For each row of a store ``train``, ``test`` where its shape is among the held-out ones, or nothing."""
    known = set(heldout.ids)
    fields = zip(store.ids, store.splits())
    return np.array([HELDOUT if name in known else ("train" if split == "train" else "") for name, split in fields])


def read_classes(features: np.ndarray, labels: np.ndarray, parts: np.ndarray, config: ShapesConfig) -> dict[str, float]:
    """Accuracy of the logistic probe.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``, -1 where there is none.
        parts: What :func:`parts_of` says.
        config: Seed and smallest class.

    Returns:
        ``logistic``, by cross-validation on the held-out shapes, and, where there are shapes for training,
        ``logistic_all``, trained on those and tested on the held-out ones.
    """
    kept = np.isin(labels, probed_classes(labels[parts == HELDOUT], config.least_members))
    test, train = (np.flatnonzero(kept & (parts == name)) for name in (HELDOUT, "train"))
    accuracies = {"logistic": cross_validated_logistic(features[test], labels[test], config.seed)}
    if len(train):
        split = Split(features[train], labels[train], features[test], labels[test])
        accuracies["logistic_all"] = logistic_probe(split, config.seed)
    return accuracies


def probed_classes(labels: np.ndarray, least_members: int) -> np.ndarray:
    """Classes with enough members for the probe."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    return classes[counts >= least_members]


def geometric_baseline(heldout: Source, config: ShapesConfig) -> dict[str, float]:
    """The same probes on D2 histograms of the original surfaces, and which classes they all tell apart."""
    with WeightStore.open(Path(config.out) / config.on_all) as store:
        labels, parts = store.labels(), parts_of(store, heldout)
        source = config.open()
        features = d2_features(store, source, np.arange(len(store)), config.seed).numpy()
        classes = probed_classes(labels[parts == HELDOUT], config.least_members)
        counts = np.array([(labels[parts == HELDOUT] == number).sum() for number in classes])
        results = {
            "probe.classes": ", ".join(store.label_names[number] for number in classes),
            "probe.num_classes": len(classes),
            "probe.num_shapes": int(counts.sum()),
            "probe.majority": float(counts.max() / counts.sum()),
        }
    return results | {f"d2.{key}": value for key, value in read_classes(features, labels, parts, config).items()}


if __name__ == "__main__":
    sys.exit(main(run))
