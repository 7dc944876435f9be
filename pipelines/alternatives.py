"""The adapter against its alternatives: the base field's own latent, a latent beside an adapter, meta-learned starts.

Every row is a way from a picture to numbers. All rows see the same training pictures; learning rates are chosen on the
first validation pictures, rows may be compared on all of these, and the test pictures are scored once.

    python -m pipelines.alternatives --config configs/fashion_mnist/alternatives.yaml

Letters: N fields, W weights of a field, P points, C channels.
"""

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipelines.experiment import FieldExperiment, fingerprint, main
from pipelines.sweep import along_rates
from wsrl.cli.parser import show_progress
from wsrl.errors import UserError
from wsrl.evaluation.generated_pictures import picture_set_scores
from wsrl.evaluation.generation import GenerationOptions
from wsrl.evaluation.probe import Split, logistic_probe, one_nn
from wsrl.evaluation.real_signals import references_from
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fields.latent import LatentAdapterRepresentation, LatentRepresentation
from wsrl.fitting.engine import FitConfig, Item, fit, read_signals
from wsrl.fitting.meta import MetaConfig, MetaStart, learn_start
from wsrl.signals import open_source
from wsrl.signals.fidelity import psnr
from wsrl.training.base import train_base
from wsrl.training.base_field import BaseTrainingConfig

PARTS = ("validation", "test")
TOGETHER = 16
"""Fields that are fitted or rendered together where the engine does not decide."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way from a picture to numbers.

    Attributes:
        base: Name of the base field among ``bases``; None for the experiment's own.
        representation: Adapter; None for a latent alone.
        latent: The numbers are a latent of the base field, beside the adapter where there is one.
        fit: How fields are fitted from the shared start.
        learning_rates: Rates to choose from; none for that of ``fit``.
        meta: How a start is learned, from which fields are then fitted, instead of ``fit``.
    """

    base: str | None = None
    representation: RepresentationConfig | None = None
    latent: bool = False
    fit: FitConfig = FitConfig()
    learning_rates: tuple[float, ...] = ()
    meta: MetaConfig | None = None

    def __post_init__(self):
        if self.representation is None and not self.latent:
            raise UserError(
                "a row has neither an adapter nor a latent", allowed="one or both", do="set representation or latent"
            )

    def build(self, base: BaseField) -> Representation:
        """What the numbers are."""
        if self.representation is None:
            return LatentRepresentation(base)
        if self.latent:
            return LatentAdapterRepresentation(self.representation, base)
        return Representation.build(self.representation, base)


@dataclass(frozen=True, kw_only=True)
class AlternativesConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        rows: Ways by name.
        bases: Training of further base fields by name, on the signals of the experiment's own.
        num_validation: The first pictures outside training, on which choices are made; the rest is for the test.
        num_swept: The first of these, on which learning rates are compared.
        num_timed: Training pictures whose fits are timed, one row after the other.
        scores: Fields of ``GenerationOptions``: what sets of pictures are compared with.
    """

    folder: ClassVar[str] = "representations"
    shared: ClassVar[str] = "alternatives"

    rows: dict[str, Alternative] = field(default_factory=dict)
    bases: dict[str, BaseTrainingConfig] = field(default_factory=dict)
    num_validation: int = 500
    num_swept: int = 32
    num_timed: int = 32
    scores: dict[str, Any] = field(default_factory=dict)
    out: str = "runs/alternatives"

    def __post_init__(self):
        if unknown := {row.base for row in self.rows.values()} - {None, *self.bases}:
            raise UserError(f"rows use the bases {sorted(unknown)}", allowed=", ".join(self.bases), do="name one")

    @property
    def how(self) -> str:
        """Changes with what rows are fitted to and scored by."""
        return fingerprint([self.scores, self.source, self.num_validation, self.num_timed, self.seed])

    def base_of(self, row: Alternative) -> BaseField:
        """The trained base field of a row."""
        return BaseField.from_pretrained(self.base_folder if row.base is None else Path(self.out) / "bases" / row.base)

    def train_others(self) -> dict[str, float]:
        """Train the further base fields, or keep what an earlier run left; returns how good they are."""
        results = {}
        source = open_source(self.data, **(self.source if self.base_source is None else self.base_source))
        for name, training in self.bases.items():
            folder = Path(self.out) / "bases" / name
            with self.parts.timed(f"bases.{name}", there=(folder / "metrics.json").is_file(), folder=folder):
                metrics = train_base(source, training, out=folder, progress=show_progress).metrics
            results |= {f"bases.{name}.{key.removeprefix('base.')}": value for key, value in metrics.items()}
        return results


class Pictures:
    """The pictures of the experiment, read once, and what sets of pictures are judged by.

    Args:
        config: The experiment.
    """

    def __init__(self, config: AlternativesConfig):
        self.config, source = config, config.open()
        splits = np.array(source.splits())
        train, others = np.flatnonzero(splits == "train"), np.flatnonzero(splits != "train")
        self.rows = {"train": np.arange(len(train))}
        ends = {"validation": others[: config.num_validation], "test": others[config.num_validation :]}
        for name, part in ends.items():
            self.rows[name] = np.arange(len(part)) + sum(map(len, self.rows.values()))
        order = np.concatenate([train, *ends.values()]).tolist()
        self.items: list[Item] = list(read_signals(source, order))
        signals = [signal for _, _, signal in self.items]
        self.form, self.coords = source.form, signals[0].coords
        self.values = torch.stack([signal.values for signal in signals])  # (N, P, C)
        names = {name: number for number, name in enumerate(source.label_names)}
        self.labels = np.array([names[signal.label] for signal in signals])

    def of(self, part: str) -> list[Item]:
        """The signals of a part, as the engine takes them."""
        return [self.items[row] for row in self.rows[part]]

    @cached_property
    def _references(self):
        options = GenerationOptions(**{"seed": self.config.seed} | self.config.scores)
        whole = {name: value for name, value in self.config.source.items() if name not in ("limit", "split")}
        seen = frozenset(self.items[row][1] for row in self.rows["train"])
        features, pictures, facts = references_from(
            open_source(self.config.data, **whole), seen, options, show_progress
        )
        return features, features(pictures), facts

    def judge(self, values: Tensor) -> dict[str, float]:
        """Distance, precision and recall of a set of fields by their values ``(N, P, C)``."""
        features, references, _ = self._references
        low, high = self.form.value_range
        pictures = ((values - low) / (high - low)).clamp(0, 1).mT.unflatten(2, self.form.grid)  # (N, C, H, W)
        scores = picture_set_scores(features(pictures), references)
        return {key: scores[key] for key in ("fd", "precision", "recall")}

    def judged_by(self) -> dict[str, float]:
        """What is known of the features and of the real pictures."""
        return self._references[2]

    def read(self, numbers: np.ndarray, part: str) -> dict[str, float]:
        """What probes read of the class out of numbers of all pictures ``(N, F)``."""
        train, rows = self.rows["train"], self.rows[part]
        split = Split(numbers[train], self.labels[train], numbers[rows], self.labels[rows])
        return {"logistic": logistic_probe(split, self.config.seed), "one_nn": one_nn(split)}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A row with all that its fits need.

    Attributes:
        row: The row, its learning rate chosen.
        representation: What the numbers are.
        start: The learned start, where there is one.
    """

    row: Alternative
    representation: Representation
    start: MetaStart | None = None

    def fit(self, items: list[Item]) -> Tensor:
        """Weights ``(N, W)`` of pictures; a field that diverged stays at the shared start."""
        if self.start is not None:
            values, coords = torch.stack([signal.values for _, _, signal in items]), items[0][2].coords
            return torch.cat([self.start.fit(coords, part) for part in values.split(TOGETHER)])
        layout, shared = self.representation.layout, self.representation.initial()
        found = {result.id: result.weights or shared for result in fit(self.representation, items, self.row.fit)}
        return torch.stack([layout.flatten(found[name]) for _, name, _ in items])

    @torch.no_grad()
    def values(self, numbers: Tensor, coords: Tensor) -> Tensor:
        """Values ``(N, P, C)`` of fields with weights ``(N, W)``."""
        unflatten = self.representation.layout.unflatten
        return torch.cat([self.representation.evaluate(unflatten(part), coords) for part in numbers.split(TOGETHER)])


def run(config: AlternativesConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    results, pictures = config.train_base() | config.train_others(), Pictures(config)
    path = Path(config.out) / "pixels.scores.json"
    pixels = config.kept("scores.pixels", path, lambda: of_pixels(pictures), config.how)
    results |= {f"pixels.{key}": value for key, value in pixels.items()}
    for name, row in config.rows.items():
        results |= scored(name, row, pictures, config)
    return results


def scored(name: str, row: Alternative, pictures: Pictures, config: AlternativesConfig) -> dict[str, float]:
    """The scores of one row; what an earlier run found is kept."""
    representation = row.build(config.base_of(row))
    row, sweep = with_best_rate(name, row, representation, pictures, config)
    way = Way(row=row, representation=representation, start=learned_start(name, row, representation, pictures, config))
    path = Path(config.out) / f"{name}-{fingerprint(asdict(row))}.fields.npy"
    with config.parts.timed(f"fields.{name}", there=path.is_file()):
        if not path.is_file():
            np.save(path, way.fit(pictures.items).numpy())
        numbers = torch.from_numpy(np.load(path))
    path, how = Path(config.out) / f"{name}.scores.json", [config.how, fingerprint(asdict(row))]
    scores = config.kept(f"scores.{name}", path, lambda: measure(way, numbers, pictures), how)
    print(name, {score: round(value, 3) for score, value in scores.items()}, file=sys.stderr, flush=True)
    return sweep | {f"{name}.{score}": value for score, value in scores.items()}


def with_best_rate(
    name: str, row: Alternative, representation: Representation, pictures: Pictures, config: AlternativesConfig
) -> tuple[Alternative, dict[str, float]]:
    """The row with the learning rate of the best mean PSNR, and what the record says of the sweep."""
    if not row.learning_rates:
        return row, {}
    some = pictures.of("validation")[: config.num_swept]

    def score(rate: float) -> float:
        results = fit(representation, some, replace(row.fit, learning_rate=rate))
        return float(np.mean([result.metrics.get("psnr", 0.0) for result in results]))

    def sweep() -> dict[str, float]:
        return {f"{rate:g}": value for rate, value in along_rates(row.learning_rates, score).items()}

    path, how = Path(config.out) / f"{name}.sweep.json", [config.how, config.num_swept, fingerprint(asdict(row))]
    scores = config.kept(f"sweep.{name}", path, sweep, how)
    best = max(scores, key=scores.__getitem__)
    facts = {f"sweep.{name}.{rate}": value for rate, value in scores.items()} | {f"{name}.learning_rate": float(best)}
    return replace(row, fit=replace(row.fit, learning_rate=float(best))), facts


def learned_start(
    name: str, row: Alternative, representation: Representation, pictures: Pictures, config: AlternativesConfig
) -> MetaStart | None:
    """The learned start of a row that has one; what an earlier run left is kept."""
    if row.meta is None:
        return None
    path = Path(config.out) / f"{name}-{fingerprint(asdict(row))}.start.npz"
    with config.parts.timed(f"start.{name}", there=path.is_file()):
        if not path.is_file():
            values = pictures.values[pictures.rows["train"]]
            made = learn_start(representation, pictures.coords, values, row.meta, progress=show_progress)
            np.savez(path, start=made.start.numpy(), rates=made.rates.numpy())
        arrays = {key: torch.from_numpy(array) for key, array in np.load(path).items()}
    how = {"steps": row.meta.inner_steps, "longest": row.meta.longest}
    return MetaStart(representation=representation, **how, **arrays)


def measure(way: Way, numbers: Tensor, pictures: Pictures) -> dict[str, float]:
    """The scores of a row on both parts, and its time, by the weights ``(N, W)`` of all pictures."""
    layout = way.representation.layout
    scores = {"num_trainable": layout.num_trainable, "num_train": len(pictures.rows["train"])}
    scores["steps"] = way.row.fit.steps if way.start is None else way.start.steps
    for part in PARTS:
        # How close the fields are to their signals, and to the real pictures as a set.
        rows = pictures.rows[part]
        values = way.values(numbers[rows], pictures.coords)
        closeness = psnr(values, pictures.values[rows], pictures.form.value_range).numpy()
        own = {"num": len(rows), "psnr": float(closeness.mean()), "psnr_5th": float(np.percentile(closeness, 5))}
        # What is read of the class from what was trained.
        own |= pictures.judge(values) | pictures.read(numbers[:, layout.trainable()].numpy(), part)
        scores |= {f"{part}.{key}": value for key, value in own.items()}
    return scores | times(way, pictures.of("train")[: pictures.config.num_timed])


def of_pixels(pictures: Pictures) -> dict[str, float]:
    """The same scores of the pictures themselves."""
    flat, scores = pictures.values.flatten(1), {"num_trainable": pictures.values[0].numel()} | pictures.judged_by()
    for part in PARTS:
        own = pictures.judge(pictures.values[pictures.rows[part]]) | pictures.read(flat.numpy(), part)
        scores |= {f"{part}.{key}": value for key, value in own.items()}
    return scores


def times(way: Way, items: list[Item]) -> dict[str, float]:
    """Milliseconds per field on one thread, and by autograd alone where the engine has its kernel for the row."""
    threads, ways = torch.get_num_threads(), {"ms_per_field": way}
    torch.set_num_threads(1)
    if way.start is None and way.row.fit.gradient == "auto":
        by_autograd = replace(way.row, fit=replace(way.row.fit, gradient="autograd"))
        ways["ms_per_field_autograd"] = replace(way, row=by_autograd)
    found = {}
    for name, one in ways.items():
        one.fit(items[:TOGETHER])  # compiled and warm
        began = time.perf_counter()
        one.fit(items)
        found[name] = 1000 * (time.perf_counter() - began) / len(items)
    torch.set_num_threads(threads)
    return found


if __name__ == "__main__":
    sys.exit(main(run))
