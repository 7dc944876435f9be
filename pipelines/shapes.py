"""The representations side by side on shapes: how well they reproduce surfaces, what their weights say of the class.

Shapes are prepared, a base field is trained, settings and rates are swept on training shapes that it did not see, and
every kind is fitted to the held-out shapes (the split ``test``) and scored there. What a kind has more than the
reference is given shape by shape, with the interval of a paired bootstrap. There is one base field and one fit of each
shape: the interval says nothing of other base fields and starts. What an earlier run finished is kept.

    python -m pipelines.shapes --config configs/solids/shapes.yaml
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.benchmark_meshing import compare
from pipelines.experiment import FieldExperiment, fingerprint, main
from pipelines.shape_pictures import draw_shapes
from pipelines.shape_scores import ScoreTask, score_in_processes
from pipelines.sweep import Choice, SweptKind, choose, fitted_psnr
from wsrl.cli.parser import show_progress
from wsrl.errors import UserError
from wsrl.evaluation.features import d2_features, weight_features
from wsrl.evaluation.probe import NUM_FOLDS, cross_validated_logistic
from wsrl.evaluation.shape_reconstruction import summarise_scores
from wsrl.evaluation.structure import with_band
from wsrl.fields import BaseField
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import merge_metrics, write_json_atomic
from wsrl.signals.shapes.shape import VERDICTS
from wsrl.signals.source import Source, prepare_signals, training_indices
from wsrl.store import WeightStore

HELDOUT = "test"
MEASURES = ("iou", "chamfer_l1", "psnr")
"""What rows are compared by, shape by shape: IoU, Chamfer distance in normalised coordinates, PSNR in dB."""


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        data: Named source or folder of shapes with the splits ``train`` and ``test``.
        kinds: Rows of the table by name.
        fit: How fields are fitted; each kind brings its own learning rate.
        num_heldout: The first so many shapes of the split ``test`` are the held-out ones; None for all of them.
        num_sweep: Training shapes that each point of the sweep is tried on: the last ones.
        reference: The row that the others are compared with.
        resolution: Cells of the scored meshes along a side of the cube.
        num_points: Points on either surface for the scores.
        least_members: Classes with fewer held-out shapes are left out of the probes.
        num_meshed: Fields whose meshes are made on the whole grid too.
        num_shown: Held-out shapes in the picture.
        processes: Processes that prepare and score.
        picture: PNG file of the picture for the README; None for none.
    """

    kinds: dict[str, SweptKind] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    num_heldout: int | None = None
    num_sweep: int = 24
    reference: str = "mlora_asym"
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
        if self.kinds and self.reference not in self.kinds:
            raise UserError(f"reference is {self.reference!r}", allowed=", ".join(self.kinds), do="name a row")


def run(config: ShapesConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    out = Path(config.out)
    whole, heldout = config.open(), config.open(**heldout_options(config))
    tried = swept_shapes(whole, config)
    results = prepare(whole, [*training_indices(whole)[: config.base.num_signals], *tried]) | prepare(heldout)
    results |= config.train_base()
    for name, kind in config.kinds.items():
        base = BaseField.from_pretrained(config.base_folder) if kind.representation.is_adapter else None
        how = [whole.description, tried, None if base is None else base.sha256()]
        choice = choose(config, name, kind, config.fit, fitted_psnr(whole, tried, base), how=how)
        results |= choice.numbers(name)
        results |= build(name, heldout, choice, config)
        asked = [choice.representation.to_dict(), asdict(choice.fit), *how, heldout.description, scoring(config)]
        path = out / f"{name}.scores.json"
        results |= config.kept(f"scores.{name}", path, lambda name=name: score(name, config), fingerprint(asked))
        print(json.dumps({k: v for k, v in results.items() if k.startswith(f"{name}.")}), file=sys.stderr, flush=True)
    results |= differences(config)
    results |= config.kept("scores.d2", out / "d2.scores.json", lambda: geometric_baseline(heldout, config))
    results |= config.kept("meshing", out / "meshing.json", lambda: meshing(config))
    draw_shapes(heldout, out, list(config.kinds), config.num_shown, config.resolution, config.picture)
    return results


def swept_shapes(source: Source, config: ShapesConfig) -> list[int]:
    """Training shapes that the sweep is tried on, which the base field is not trained on.

    Raises:
        UserError: The base field leaves too few.
    """
    rest = training_indices(source)[config.base.num_signals :]
    if len(rest) < config.num_sweep:
        wrong = f"the base field leaves {len(rest)} training shapes and num_sweep is {config.num_sweep}"
        raise UserError(wrong, allowed="as many as num_sweep or more", do="lower base.num_signals or num_sweep")
    return rest[-config.num_sweep :]


def heldout_options(config: ShapesConfig) -> dict[str, Any]:
    """Options of the source, beside those of the experiment, that leave the held-out shapes alone."""
    limit = {} if config.num_heldout is None else {"limit": config.num_heldout}
    return {"split": HELDOUT, **limit}


def prepare(source: Source, indices: Sequence[int] | None = None) -> dict[str, float]:
    """Prepare shapes; how many can be used, under ``heldout.`` where no indices are given, and how long one took."""
    prefix, indices = ("heldout.", range(len(source))) if indices is None else ("", indices)
    prepare_signals(source, indices, show_progress)
    records = [source.record(index) for index in indices]
    verdicts = Counter(record.verdict for record in records)
    usable = [record for record in records if record.verdict != "rejected"]
    if not usable:
        reason = "; ".join(records[0].reasons) if records else "there are none"
        raise UserError(f"no shape of {source.name} can be used: {reason}", do="look at wsrl data prepare")
    counts = {f"signals.{prefix}{verdict}": verdicts[verdict] for verdict in VERDICTS}
    seconds = float(np.median([record.quality["seconds"] for record in usable]))
    return counts | {f"sampling.{prefix}seconds_median": seconds}


def meshing(config: ShapesConfig) -> dict[str, float]:
    """How many times as long the whole grid takes as coarse to fine, on some fields of the reference; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with WeightStore.open(Path(config.out) / config.reference) as store:
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


def scoring(config: ShapesConfig) -> dict[str, int]:
    """What the scores of a surface depend on beside the field."""
    return {"resolution": config.resolution, "num_points": config.num_points, "seed": config.seed}


def score(name: str, config: ShapesConfig) -> dict[str, float]:
    """Surfaces of the fields of a kind, and what a probe reads from their weights; each shape's scores are kept too."""
    out = Path(config.out)
    options = config.source | heldout_options(config)
    task = ScoreTask(store=str(out / name), data=config.data, source=options, **scoring(config))
    with WeightStore.open(out / name) as store:
        rows = np.arange(len(store))
        scores = score_in_processes(task, rows, config.processes) | {"psnr": store.metrics("psnr")}
        each = {"id": list(store.ids)} | {key: value.tolist() for key, value in scores.items()}
        write_json_atomic(shape_scores_file(name, config), each)
        numbers = summarise_scores(scores, np.full(len(rows), ""))
        numbers |= {"num_trainable": store.layout.num_trainable, "psnr": float(scores["psnr"].mean())}
        numbers["logistic"] = read_classes(weight_features(store, rows).numpy(), store.labels(), config)
    return {f"{name}.{key}": value for key, value in numbers.items()}


def shape_scores_file(name: str, config: ShapesConfig) -> Path:
    """Where the scores of each shape of a kind are."""
    return Path(config.out) / f"{name}.shapes.json"


def differences(config: ShapesConfig) -> dict[str, float]:
    """How much more every row has than the reference over the shapes that both have a score of, with its interval."""
    numbers: dict[str, float] = {}
    each = {name: json.loads(shape_scores_file(name, config).read_text()) for name in config.kinds}
    beside = each.pop(config.reference)
    for name, scores in each.items():
        for measure in MEASURES:
            values, others = (dict(zip(one["id"], one[measure])) for one in (scores, beside))
            paired = np.array([values[key] - others[key] for key in values.keys() & others.keys()])
            paired = np.sort(paired[~np.isnan(paired)])  # in an order that does not depend on that of the ids
            numbers |= with_band(f"{name}.difference.{measure}", paired, config.seed)
    return numbers


def read_classes(features: np.ndarray, labels: np.ndarray, config: ShapesConfig) -> float:
    """Accuracy of the logistic probe by cross-validation on the held-out shapes of the probed classes.

    Args:
        features: Features ``(N, F)``.
        labels: Class indices ``(N,)``, -1 where there is none.
        config: Seed and smallest class.
    """
    kept = np.isin(labels, probed_classes(labels, config.least_members))
    return cross_validated_logistic(features[kept], labels[kept], config.seed)


def probed_classes(labels: np.ndarray, least_members: int) -> np.ndarray:
    """Classes with enough members for the probe."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    return classes[counts >= least_members]


def geometric_baseline(heldout: Source, config: ShapesConfig) -> dict[str, float]:
    """The same probe on D2 histograms of the original surfaces, and which classes they all tell apart."""
    with WeightStore.open(Path(config.out) / config.reference) as store:
        labels = store.labels()
        features = d2_features(store, heldout, np.arange(len(store)), config.seed).numpy()
        classes = probed_classes(labels, config.least_members)
        counts = np.array([(labels == number).sum() for number in classes])
        return {
            "probe.classes": ", ".join(store.label_names[number] for number in classes),
            "probe.num_classes": len(classes),
            "probe.num_shapes": int(counts.sum()),
            "probe.majority": float(counts.max() / counts.sum()),
            "d2.logistic": read_classes(features, labels, config),
        }


if __name__ == "__main__":
    sys.exit(main(run))
