"""Sweeps: the setting, the number of steps and the learning rate that a representation is fitted with.

Every setting has a line of learning rates for every number of steps. A best rate at the end of its line says nothing
about what lies beyond: the line goes on by doubling or halving, a few times at most.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.experiment import FieldExperiment, fingerprint
from wsrl.errors import UserError
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.signals.source import Source

MOST_EXTENSIONS = 3

Score = Callable[[RepresentationConfig, FitConfig], float]


@dataclass(frozen=True, kw_only=True)
class SweptKind:
    """A representation whose settings and learning rate are chosen.

    Attributes:
        representation: What the weights are.
        learning_rates: Rates of the sweep; those of each setting are extended until the best one is inside.
        settings: Overrides of the representation by dotted name, such as ``{"field.omega": 40.0}``, by the name of the
            setting, which has no dot. None given: the representation as it is.
    """

    representation: RepresentationConfig
    learning_rates: tuple[float, ...]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        for name, overrides in self.settings.items():
            if "." in name:
                raise UserError(f"the setting {name!r} has a dot", allowed="names without one", do="rename it")
            overridden(self.representation, overrides)

    def to_dict(self) -> dict:
        """Plain values."""
        return asdict(self) | {"representation": self.representation.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a sweep.

    Attributes:
        setting: Name of the setting; empty where there are none.
        steps: Steps of each fit.
        learning_rate: Its rate.
        score: Mean PSNR in dB.
    """

    setting: str
    steps: int
    learning_rate: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a sweep found.

    Attributes:
        representation: Of the best setting.
        fit: With the best rate and number of steps.
        best: The best trial.
        trials: All of them.
    """

    representation: RepresentationConfig
    fit: FitConfig
    best: Trial
    trials: tuple[Trial, ...]

    @property
    def fitted(self) -> tuple[RepresentationConfig, FitConfig]:
        """All that decides the fields."""
        return self.representation, self.fit

    @property
    def inside(self) -> bool:
        """Whether larger and smaller rates than the best one were tried with it."""
        rates = [trial.learning_rate for trial in self.trials if _line(trial) == _line(self.best)]
        return min(rates) < self.best.learning_rate < max(rates)

    def numbers(self, name: str, sweep: str = "sweep") -> dict[str, Any]:
        """What the record says: what was chosen under ``<name>.``, all scores under ``<sweep>.<kind>.``.

        Args:
            name: The kind, and what it is chosen by where there are several criteria: ``<kind>[.<criterion>]``.
            sweep: First word of the keys of the scores.
        """
        several = len({trial.steps for trial in self.trials}) > 1
        scores = {}
        for trial in self.trials:
            words = (trial.setting, str(trial.steps) if several else "", f"{trial.learning_rate:g}")
            scores[".".join([sweep, name.split(".")[0], *filter(None, words)])] = trial.score
        chosen = {"learning_rate": self.best.learning_rate, "steps": self.best.steps, "rate_is_inside": self.inside}
        chosen |= {"setting": self.best.setting} if self.best.setting else {}
        return scores | {f"{name}.{key}": value for key, value in chosen.items()}


def choose(
    config: FieldExperiment,
    name: str,
    kind: SweptKind,
    fitted: FitConfig,
    score: Score,
    *,
    steps: Sequence[int] = (),
    sweep: str = "sweep",
    how: Any = None,
) -> Choice:
    """The setting, steps and rate with the best score; a finished sweep of the same kind is kept.

    Args:
        config: The experiment.
        name: Name of the kind.
        kind: Its representation, settings and rates.
        fitted: How fields are fitted, but for the rate.
        score: What is to be large.
        steps: Numbers of steps; empty for that of ``fitted``.
        sweep: Name of the sweep, and of its part.
        how: Whatever else decides the scores, as plain values.
    """
    steps = tuple(steps) or (fitted.steps,)
    path, asked = Path(config.out) / f"{sweep}.{name}.json", fingerprint([kind.to_dict(), asdict(fitted), steps, how])

    def make() -> dict:
        return {"trials": [asdict(trial) for trial in tried(f"{sweep} {name}", kind, fitted, score, steps)]}

    found = config.kept(f"{sweep}.{name}", path, make, asked)["trials"]
    trials = tuple(Trial(**trial) for trial in found)
    best = max(trials, key=lambda trial: trial.score)
    chosen = overridden(kind.representation, kind.settings.get(best.setting, {}))
    how_fitted = replace(fitted, steps=best.steps, learning_rate=best.learning_rate)
    return Choice(representation=chosen, fit=how_fitted, best=best, trials=trials)


def tried(name: str, kind: SweptKind, fitted: FitConfig, score: Score, steps: Iterable[int]) -> list[Trial]:
    """All trials of a sweep.

    Args:
        name: What is printed beside the scores.
        kind: Representation, settings and rates.
        fitted: How fields are fitted, but for the steps and the rate.
        score: What is to be large.
        steps: Numbers of steps.
    """
    trials = []
    for setting, overrides in (kind.settings or {"": {}}).items():
        representation = overridden(kind.representation, overrides)
        for count in steps:

            def of_rate(rate: float, representation=representation, count=count) -> float:
                return score(representation, replace(fitted, steps=count, learning_rate=rate))

            scores = along_rates(kind.learning_rates, of_rate)
            trials += [
                Trial(setting=setting, steps=count, learning_rate=rate, score=value) for rate, value in scores.items()
            ]
            shown = ", ".join(f"{rate:g}: {value:.2f}" for rate, value in scores.items())
            print(f"{name} {setting} {count} steps: {shown} dB", file=sys.stderr, flush=True)
    return trials


def along_rates(rates: Iterable[float], score: Callable[[float], float]) -> dict[float, float]:
    """Scores of rates, and of further ones until the best one has others on both sides of it.

    Args:
        rates: Rates to begin with.
        score: From a rate to what is to be large.

    Returns:
        Scores by rate, rising; at most ``MOST_EXTENSIONS`` rates are added.
    """
    scores = {rate: score(rate) for rate in sorted(rates)}
    for _ in range(MOST_EXTENSIONS):
        best = max(scores, key=scores.__getitem__)
        if min(scores) < best < max(scores):
            break
        further = best * 2 if best == max(scores) else best / 2
        scores[further] = score(further)
    return dict(sorted(scores.items()))


def overridden(config: Any, overrides: Mapping[str, Any]) -> Any:
    """A configuration with other values by dotted name.

    Args:
        config: A dataclass, whose groups are dataclasses too.
        overrides: Values by name, such as ``{"field.omega": 40.0}``.

    Raises:
        UserError: There is no such name.
    """
    for name, value in overrides.items():
        first, _, rest = name.partition(".")
        known = [entry.name for entry in fields(config)] if hasattr(config, "__dataclass_fields__") else []
        if first not in known:
            allowed = ", ".join(known) or "no name inside a plain value"
            raise UserError(f"a setting overrides {name!r}", allowed=allowed, do="correct the name")
        config = replace(config, **{first: overridden(getattr(config, first), {rest: value}) if rest else value})
    return config


def fitted_psnr(source: Source, indices: Sequence[int], base: BaseField | None) -> Score:
    """Mean PSNR in dB of some signals, outcomes without a field counting as 0.

    Args:
        source: Where the signals are.
        indices: Their rows; they are read once.
        base: The base field of adapters.
    """
    signals = list(read_signals(source, indices))

    def score(representation: RepresentationConfig, how: FitConfig) -> float:
        made = Representation.build(representation, base, **source.form.sizes)
        return float(np.mean([result.metrics.get("psnr", 0.0) for result in fit(made, signals, how)]))

    return score


def _line(trial: Trial) -> tuple[str, int]:
    return trial.setting, trial.steps
