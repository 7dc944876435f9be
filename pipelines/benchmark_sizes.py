"""The fitting engine at the sizes of real pictures: time to a stated quality, beside a plain torch loop, and how near
the matrix peak its steps come.

Base fields, ranks and frequencies are those that ``wsrl base`` and ``wsrl build`` choose for pictures of that size.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.experiment import Experiment
from pipelines.rivals import LoopOutcome, fewest_steps, loop_over
from pipelines.timing import matrix_peak, step_flops, timed
from wsrl.cli.parser import show_progress
from wsrl.errors import UserError
from wsrl.fields import Representation
from wsrl.fitting.defaults import default_fit, default_representation
from wsrl.fitting.engine import fit, optimise, read_signals
from wsrl.fitting.fit_config import FitConfig
from wsrl.signals import open_source
from wsrl.signals.source import training_indices
from wsrl.store import FitResult
from wsrl.training.base import default_base, heldout_indices, train_base

KIND = "mlora_asym"


@dataclass(frozen=True, kw_only=True)
class SizeConfig:
    """Pictures of one size.

    Attributes:
        data: Named source or folder.
        source: Options of the source, ``size`` among them.
        num_train: Pictures that the base field may see.
        variants: Ways of the engine by name.
        headline: The variant that is compared with the loop.
        loop_rates: Learning rates that the loop is tried at; the best should not be the first or the last.
        max_steps: Steps at most of the loop.
        num_sweep: Held-out pictures on which the loop's rate is chosen.
        num: Held-out pictures that are timed, the same ones for all: those that reach the quality by the defaults of
            ``wsrl build``, so that no time depends on when the others are given up.
        steps_at_peak: Steps on all points whose operations are counted.
        num_at_peak: Fields that take them.
    """

    data: str = "noto-emoji"
    source: dict[str, Any] = field(default_factory=dict)
    num_train: int = 2500
    variants: dict[str, FitConfig] = field(default_factory=dict)
    headline: str = "best"
    loop_rates: tuple[float, ...] = (0.01, 0.02, 0.04)
    max_steps: int = 2000
    num_sweep: int = 3
    num: int = 8
    steps_at_peak: int = 20
    num_at_peak: int = 4


class SizeBenchmark:
    """The measurements at one size.

    Args:
        name: Of the size; keys of the record begin with it.
        config: What is measured.
        experiment: The benchmark that this is a part of; the base field is kept among its parts.
        repetitions: Turns of what takes little time.
    """

    def __init__(self, name: str, config: SizeConfig, experiment: Experiment, repetitions: int):
        self.name, self.config, self.repetitions = name, config, repetitions
        self.source = open_source(config.data, **config.source)
        train = training_indices(self.source)
        training = default_base(self.source.form, min(len(train), config.num_train))
        folder = Path(experiment.out) / "bases" / name
        with experiment.parts.timed(f"bases.{name}", there=(folder / "metrics.json").is_file(), folder=folder):
            base = train_base(self.source, training, out=folder, progress=show_progress)
        heldout = heldout_indices(self.source, train, training.num_signals)
        kind = default_representation(KIND, self.source.form)
        self.representation = Representation.build(kind, base.field, **self.source.form.sizes)
        self.goal = config.variants[config.headline].target_psnr
        self.indices, self.share_within_reach = self._within_reach(heldout)
        signals = [self.source[index] for index in self.indices]
        self.coords, self.values = signals[0].coords, torch.stack([signal.values for signal in signals])

    def _within_reach(self, heldout: list[int]) -> tuple[list[int], float]:
        """Evenly spread pictures that the defaults bring to the quality, and their share of those that were tried."""
        num = 2 * self.config.num
        tried = heldout[:: max(1, len(heldout) // num)][:num]
        results = fit(self.representation, read_signals(self.source, tried), default_fit(KIND, self.source.form))
        reached = sorted(result.index for result in results if result.metrics.get("psnr", 0.0) >= self.goal)
        if len(reached) < self.config.num:
            raise UserError(
                f"{self.name}: {len(reached)} of {num} pictures reach {self.goal:g} dB by the defaults",
                allowed=f"at least {self.config.num}",
                do="lower num or target_psnr of the size",
            )
        return reached[: self.config.num], len(reached) / num

    def measure(self) -> dict[str, float]:
        """All numbers of this size, by dotted name."""
        config, goal = self.config, self.goal
        # Steps do not depend on what else the machine does, so the rate is chosen first.
        some = self.values[: config.num_sweep]
        best, steps = fewest_steps(lambda rate: self._loop(rate, goal, some), config.loop_rates)
        numbers = {"loop.rate": best} | {f"loop.steps_at_rate_{rate:g}": num for rate, num in steps.items()}
        numbers |= self._share_of_peak()
        # The engine's turns around those of the loop, which take most of the time.
        turns = {name: [self._engine(how)] for name, how in config.variants.items()}
        loop_s, outcomes = timed(lambda: self._loop(best, goal, self.values))
        for name, how in config.variants.items():
            turns[name] += [self._engine(how) for _ in range(1, self.repetitions if name == config.headline else 2)]
            numbers |= self._summary(name, turns[name])
        numbers |= {
            "loop.steps": statistics.fmean(outcome.steps for outcome in outcomes),
            "loop.reached": statistics.fmean(outcome.psnr >= goal for outcome in outcomes),
            "loop.ms_per_field": 1e3 * loop_s / config.num,
            "numbers": float(self.representation.layout.num_trainable),
            "share_within_reach": self.share_within_reach,
        }
        numbers["reached"] = min(numbers["loop.reached"], numbers[f"{config.headline}.reached"])
        numbers["ratio_loop"] = numbers["loop.ms_per_field"] / numbers[f"{config.headline}.ms_per_field"]
        return {f"{self.name}.{key}": value for key, value in numbers.items()}

    def _loop(self, rate: float, goal: float, values: Tensor) -> list[LoopOutcome]:
        return loop_over(self.representation, self.coords, values, lambda step: rate, self.config.max_steps, goal)

    def _engine(self, how: FitConfig) -> tuple[float, list[FitResult]]:
        """Seconds of the fits of all pictures, metrics and hashes of every row included, and the rows."""
        return timed(lambda: list(fit(self.representation, read_signals(self.source, self.indices), how)))

    def _summary(self, name: str, turns: list[tuple[float, list[FitResult]]]) -> dict[str, float]:
        results = turns[0][1]
        return {
            f"{name}.steps": statistics.fmean(result.metrics["steps"] for result in results),
            f"{name}.reached": statistics.fmean(result.status == "ok" for result in results),
            f"{name}.ms_per_field": 1e3 * statistics.median(seconds for seconds, _ in turns) / len(results),
        }

    def _share_of_peak(self) -> dict[str, float]:
        """GFLOP/s of the matrix products of steps on all points, beside the matrix peak of the same minute."""
        num, steps = self.config.num_at_peak, self.config.steps_at_peak
        how = FitConfig(steps=steps, learning_rate=1e-3, warmup=0.0, batch_size=num)
        start = self.representation.layout.flatten(self.representation.initial())
        starts = self.representation.layout.unflatten(start.expand(num, -1))
        targets = self.values[torch.arange(num) % len(self.values)]
        flops, grid = step_flops(self.representation, len(self.coords)), self.source.form.grid
        peaks, rates = [], []
        for _ in range(self.repetitions + 1):  # the first one warms up
            peaks.append(matrix_peak())
            taken, _ = timed(lambda: optimise(self.representation, starts, self.coords, targets, how, grid=grid))
            rates.append(flops * steps * num / taken / 1e9)
        peak, rate = statistics.median(peaks[1:]), statistics.median(rates[1:])
        return {"peak_gflops": peak, "all_points.gflops": rate, "fraction_of_peak": rate / peak}


def ends_of_sweeps(results: dict[str, float]) -> list[str]:
    """Loops whose best rate is the smallest or the largest that was tried: another might be better still."""
    problems = []
    for key in [key for key in results if key.endswith("loop.rate")]:
        loop, sweep = key.removesuffix(".rate"), f"{key.removesuffix('rate')}steps_at_rate_"
        tried = [float(name.removeprefix(sweep)) for name in results if name.startswith(sweep)]
        if results[key] in (min(tried), max(tried)):
            problems.append(f"NOT COMPARABLE: {loop}: its best rate {results[key]:g} lies at an end of {sorted(tried)}")
    return problems


def short_of_quality(results: dict[str, float]) -> list[str]:
    """Sizes at which some fields that are compared do not reach the quality."""
    shares = {key.partition("."): share for key, share in results.items()}
    short = [name for (name, _, key), share in shares.items() if key == "reached" and share < 1]
    return [f"NOT COMPARABLE: {name}: some fields do not reach the quality" for name in short]
