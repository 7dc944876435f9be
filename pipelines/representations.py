"""The representations side by side: how well they fit, between the pixels too, and what can be read from their weights.

Settings and rates are swept on training pictures that no base field saw, once for the PSNR on the grid and once for
that of pixels that the fits did not see. Every kind is then fitted to the same test pictures, adapters on every base
field and all from every start; networks of their own have no base field and differ by the start alone. What can be read
from the weights is a curve against the PSNR of the fields.

    python -m pipelines.representations --config configs/fashion_mnist/representations.yaml

Source: arXiv 2512.01759, tables 1 and 2.

Letters: F fits of a picture, N pictures.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from pipelines.experiment import FieldExperiment, fingerprint, main
from pipelines.heldout_pixels import heldout_psnr
from pipelines.reading_curves import draw_curves, read_fields, read_pixels
from pipelines.sweep import Choice, Score, SweptKind, choose, fitted_psnr
from wsrl.errors import UserError
from wsrl.evaluation.structure import with_band
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.report.comparisons import save_reconstructions
from wsrl.signals.source import Source, training_indices

NUM_SHOWN = 16
BY_UNSEEN = "by_unseen"
"""Ending of the rows whose settings, rate and steps are the best by the PSNR of pixels that the fits did not see."""
MEASURES = ("psnr", "ssim", "unseen")
"""PSNR (dB) and SSIM on the grid, PSNR (dB) at pixels that a fit of the others did not see."""


@dataclass(frozen=True, kw_only=True)
class RepresentationsConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        kinds: Rows of the table by name.
        fit: How fields are fitted; each kind brings its own learning rate.
        num_sweep: Training pictures that each point of the sweep is tried on: the last ones, or some without a split.
        sweep_only: Stop after the sweep.
        unseen_steps: Steps that are tried where the pixels that a fit did not see decide; empty: nothing is chosen so.
        num_bases: Base fields of the adapters, which differ by the seed of their training.
        num_fits: Fits of each picture on each base field, which differ by start, mask and frozen values.
        num_scored: Test pictures that are fitted; where there is no test split, some that the base fields did not see.
        num_unseen: The first so many of them are also fitted to a part of their pixels; None for all.
        on_all: The row that is also fitted to every picture there is; None for none.
        sheet: PNG file of pictures beside the fields of that row; None for none.
        reference: The row that the others are compared with, picture by picture.
        curve_steps: Steps of the fits that are read; empty: nothing is read.
        num_read_train: Training pictures whose fields are read: the first ones that the base fields did not see.
        num_read_test: Test pictures whose fields are read.
        picture: PNG file of the readings against the PSNR; None for none.
    """

    kinds: dict[str, SweptKind] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    num_sweep: int = 48
    sweep_only: bool = False
    unseen_steps: tuple[int, ...] = ()
    num_bases: int = 2
    num_fits: int = 2
    num_scored: int = 300
    num_unseen: int | None = None
    on_all: str | None = None
    sheet: str | None = None
    reference: str = "mlora_asym"
    curve_steps: tuple[int, ...] = ()
    num_read_train: int = 1000
    num_read_test: int = 500
    picture: str | None = None
    out: str = "runs/representations"

    def __post_init__(self):
        for option in () if self.sweep_only else ("reference", "on_all"):
            name = getattr(self, option)
            if name not in self.kinds and name is not None:
                allowed = ", ".join(self.kinds) or "none"
                raise UserError(f"{option} is {name!r}", allowed=allowed, do="name a row")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Rows of the pictures by what they are for; no base field saw any of them.

    Attributes:
        swept: What settings and rates are chosen on.
        read_train: What readers learn on.
        read_test: What readers are tested on.
        scored: Test pictures of the table.
        unseen: Those of them that are also fitted to a part of their pixels.
    """

    swept: Sequence[int]
    read_train: Sequence[int]
    read_test: Sequence[int]
    scored: Sequence[int]
    unseen: Sequence[int]

    @classmethod
    def of(cls, config: RepresentationsConfig, source: Source) -> "Pictures":
        """Those of an experiment.

        Raises:
            UserError: The source has too few.
        """
        training = training_indices(source)
        rest, test = training[config.base.num_signals :], sorted(set(range(len(source))) - set(training))
        read = config.num_read_train if config.curve_steps and not config.sweep_only else 0
        tested = 0 if config.sweep_only else max(config.num_scored, read and config.num_read_test)
        if test:
            swept, rest = rest[max(0, len(rest) - config.num_sweep) :], rest[: -config.num_sweep]
        else:  # a source in an order of its own: everything is spread over what the base fields did not see
            swept, rest = _spread(rest, config.num_sweep)
            test, rest = _spread(rest, tested)
        for name, found, needed in (
            ("pictures that the base fields did not see, for the sweep", swept, config.num_sweep),
            ("pictures that the base fields did not see, for the readers", rest, read),
            ("test pictures", test, tested),
        ):
            if len(found) < needed:
                raise UserError(f"there are {len(found)} {name}", allowed=f"{needed} or more", do="raise source.limit")
        return cls(
            swept=swept,
            read_train=rest[: config.num_read_train],
            read_test=test[: config.num_read_test],
            scored=test[: config.num_scored],
            unseen=test[: config.num_scored][: config.num_unseen],
        )


def _spread(items: Sequence[int], num: int) -> tuple[list[int], list[int]]:
    """So many items, spread over all of them, and the others."""
    taken = {len(items) * number // num for number in range(num)}
    return [item for i, item in enumerate(items) if i in taken], [
        item for i, item in enumerate(items) if i not in taken
    ]


def run(config: RepresentationsConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    source = config.open()
    pictures = Pictures.of(config, source)
    results, bases = train_bases(config)
    rows: dict[str, dict[str, np.ndarray]] = {}
    curves: dict[str, dict[str, float]] = {}
    for name, kind in config.kinds.items():
        own = bases if kind.representation.is_adapter else [None]
        chosen, swept = choices(name, kind, own[0], source, pictures, config)
        results |= swept
        if config.sweep_only:
            continue
        for row, choice in chosen.items():
            # The same choice by another criterion is the same row.
            same = [other for other in chosen if other in rows and chosen[other].fitted == choice.fitted]
            rows[row] = rows[same[0]] if same else scores_of(row, choice, own, source, pictures, config)
            results |= summary(row, rows[row], len(own))
        if name == config.on_all:
            results |= fit_all(name, chosen[name], source, config)
        if config.curve_steps:
            curves[name] = read_fields(name, chosen[name], own[0], source, pictures, config)
            results |= {f"{name}.curve.{key}": value for key, value in curves[name].items()}
        print(json.dumps({k: v for k, v in results.items() if k.startswith(f"{name}.")}), file=sys.stderr, flush=True)
    if config.sweep_only:
        return results
    results |= differences(rows, config)
    results |= {"run.num_scored": config.num_scored, "run.num_bases": len(bases), "run.num_fits": config.num_fits}
    if curves:
        results |= read_pixels(source, pictures, config)
        draw_curves(curves, results, config)
    return results


def train_bases(config: RepresentationsConfig) -> tuple[dict[str, float], list[BaseField]]:
    """How good the base fields are, and the base fields."""
    numbers: dict[str, float] = {}
    bases = []
    if any(kind.representation.is_adapter for kind in config.kinds.values()):
        for number in range(1 if config.sweep_only else config.num_bases):
            numbers |= config.train_base(number)
            bases.append(BaseField.from_pretrained(config.base_folder_of(number)))
    return numbers, bases


def choices(
    name: str,
    kind: SweptKind,
    base: BaseField | None,
    source: Source,
    pictures: Pictures,
    config: RepresentationsConfig,
) -> tuple[dict[str, Choice], dict[str, float]]:
    """What is best by every criterion, by the name of its row, and what the record says; on the first base field."""
    how = [source.description, list(pictures.swept), _name_of(base)]
    by_grid = choose(config, name, kind, config.fit, fitted_psnr(source, pictures.swept, base), how=how)
    if not config.unseen_steps:
        return {name: by_grid}, by_grid.numbers(name)
    score, how = unseen_psnr(source, pictures.swept, base, config.seed), [*how, config.seed]
    steps, row = config.unseen_steps, f"{name}.{BY_UNSEEN}"
    by_unseen = choose(config, name, kind, config.fit, score, steps=steps, sweep="sweep_unseen", how=how)
    return {name: by_grid, row: by_unseen}, by_grid.numbers(name) | by_unseen.numbers(row, "sweep_unseen")


def unseen_psnr(source: Source, indices: Sequence[int], base: BaseField | None, seed: int) -> Score:
    """Mean PSNR in dB of some pictures at pixels that the fits did not see.

    Args:
        source: Where the pictures are.
        indices: Their rows.
        base: The base field of adapters.
        seed: Seed of the choice of pixels.
    """
    signals = [source[index] for index in indices]

    def score(representation: RepresentationConfig, how: FitConfig) -> float:
        made = Representation.build(representation, base, **source.form.sizes)
        return heldout_psnr(made, signals, how, seed).mean().item()

    return score


def scores_of(
    row: str,
    choice: Choice,
    bases: Sequence[BaseField | None],
    source: Source,
    pictures: Pictures,
    config: RepresentationsConfig,
) -> dict[str, np.ndarray]:
    """Every measure of a row as an array ``(F, N)``, base field by base field, and ``numbers`` of a field."""
    found = []
    for base_number, base in enumerate(bases):
        for fit_number in range(config.num_fits):
            seeded = replace(choice.representation, seed=choice.representation.seed + fit_number)
            how = replace(choice.fit, seed=choice.fit.seed + fit_number)
            part = f"scores.{row}.base_{base_number}.fit_{fit_number}"
            asked = [
                seeded.to_dict(),
                asdict(how),
                source.description,
                list(pictures.scored),
                list(pictures.unseen),
                _name_of(base),
                config.seed,
            ]

            def make(seeded=seeded, how=how, base=base) -> dict:
                return score(
                    Representation.build(seeded, base, **source.form.sizes), how, source, pictures, config.seed
                )

            found.append(config.kept(part, Path(config.out) / f"{part}.json", make, fingerprint(asked)))
    return {key: np.array([one[key] for one in found]) for key in (*MEASURES, "numbers", "failed")}


def fit_all(name: str, choice: Choice, source: Source, config: RepresentationsConfig) -> dict[str, float]:
    """Fit a row to every picture, those that the base field saw among them; draw some beside their fields."""
    with config.build(f"{name}_all", choice.representation, choice.fit, source=source) as store:
        if config.sheet is not None:
            rows = range(0, len(store), -(-len(store) // NUM_SHOWN))
            save_reconstructions(source, store, rows, Path(config.sheet), size=max(source.form.grid))
        psnr, ssim = store.metrics("psnr"), store.metrics("ssim")
        numbers = {"num": len(store), "num_failed": len(source) - len(store), "psnr_mean": psnr.mean()}
        numbers |= {"psnr_5th": np.percentile(psnr, 5), "psnr_min": psnr.min(), "ssim_mean": ssim.mean()}
    return {f"{name}.all.{key}": float(value) for key, value in numbers.items()}


def score(
    representation: Representation, how: FitConfig, source: Source, pictures: Pictures, seed: int
) -> dict[str, list[float] | int]:
    """Measures of one fit of every scored picture; those of a field that there is not are 0."""
    items = list(read_signals(source, pictures.scored))
    results = sorted(fit(representation, items, how), key=lambda result: result.index)
    measured = {key: [result.metrics.get(key, 0.0) for result in results] for key in ("psnr", "ssim")}
    unseen = heldout_psnr(representation, [signal for _, _, signal in items[: len(pictures.unseen)]], how, seed)
    failed = sum(result.weights is None for result in results)
    return measured | {"unseen": unseen.tolist(), "numbers": representation.layout.num_trainable, "failed": failed}


def summary(row: str, scores: dict[str, np.ndarray], num_bases: int) -> dict[str, float]:
    """Mean, standard deviation and least of every measure over all fields, and the mean of every base field.

    Args:
        row: Name of the row.
        scores: What :func:`scores_of` gives.
        num_bases: Number of base fields; 1 for networks of their own.
    """
    numbers = {"numbers": int(scores["numbers"][0]), "num_failed": int(scores["failed"].sum())}
    for measure in MEASURES:
        values = scores[measure]
        numbers |= {f"{measure}_mean": values.mean(), f"{measure}_std": values.std(), f"{measure}_min": values.min()}
        of_base = values.reshape(num_bases, -1).mean(1)
        if num_bases > 1:
            numbers |= {f"base_{number}.{measure}_mean": mean for number, mean in enumerate(of_base)}
    return {f"{row}.{key}": value if isinstance(value, int) else float(value) for key, value in numbers.items()}


def differences(rows: dict[str, dict[str, np.ndarray]], config: RepresentationsConfig) -> dict[str, float]:
    """How much more every row has than the reference of its criterion, with the interval of a paired bootstrap.

    Fits of a picture are averaged first; pictures are what is drawn.
    """
    numbers: dict[str, float] = {}
    for row, scores in rows.items():
        name, _, criterion = row.partition(".")
        if name != config.reference:
            beside = rows[f"{config.reference}.{criterion}" if criterion else config.reference]
            for measure in MEASURES:
                paired = scores[measure].mean(0) - beside[measure].mean(0)  # (N,)
                numbers |= with_band(f"{row}.difference.{measure}", paired, config.seed)
    return numbers


def _name_of(base: BaseField | None) -> str | None:
    return None if base is None else base.sha256()


if __name__ == "__main__":
    sys.exit(main(run))
