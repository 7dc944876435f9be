"""The fitting engine against a plain torch loop and against JAX, in one run on this machine, the contestants in turn.

    python -m pipelines.benchmark_fitting --config configs/benchmark/fitting.yaml

Three questions: how long is a step (``tasks``), how long does a field take to a stated quality (``quality``; for larger
pictures ``sizes``, see ``pipelines/benchmark_sizes.py``), and do building and reading stay linear (``linear``,
``reading``, see ``pipelines/benchmark_store.py``)?

Letters: N fields, W numbers of a field, P points, C channels.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.benchmark_sizes import SizeBenchmark, SizeConfig, ends_of_sweeps, short_of_quality
from pipelines.benchmark_store import LinearConfig, ReadingConfig, measure_linear, measure_reading
from pipelines.experiment import Experiment, main
from pipelines.rivals import JaxFields, LoopOutcome, fewest_steps, loop_over
from pipelines.timing import bfloat16_instructions, matrix_peak, step_flops, timed
from wsrl.cli.parser import show_progress
from wsrl.evaluation.probe import Split, logistic_probe
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.engine import fit, optimise, read_signals
from wsrl.fitting.fit_config import FitConfig
from wsrl.signals import open_source
from wsrl.training.base import train_base
from wsrl.training.base_field import BaseTrainingConfig

PSNR_TOLERANCE_DB = 0.2


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """One network whose steps are timed.

    Attributes:
        representation: What the numbers are.
        base: Name of the base field of an adapter.
        learning_rate: Of all contestants; a cosine without warm-up.
        steps: Adam steps.
        num: Fields that the engine and JAX fit at once, and whose first ones the loop fits one by one.
        num_loop: Fields of the loop.
        jax: Whether JAX takes part.
        equal_quality: What the engine is given to reach the same PSNR in as many steps with less work.
    """

    representation: RepresentationConfig = RepresentationConfig()
    base: str | None = None
    learning_rate: float = 0.05
    steps: int = 200
    num: int = 16
    num_loop: int = 4
    jax: bool = True
    equal_quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """One recipe of the engine for a stated quality.

    Attributes:
        representation: What the numbers are.
        base: Name of the base field.
        fit: How a field is fitted, ``target_psnr`` included.
    """

    representation: RepresentationConfig = RepresentationConfig()
    base: str = "width64"
    fit: FitConfig = FitConfig(target_psnr=30.0)


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Time to a stated quality.

    Attributes:
        variants: Ways of the engine by name, the first one being the plainest.
        headline: The variant that is compared with the loops.
        loop_rates: Learning rates that the loop is tried at.
        literal: Representation of the loop of the paper's ``W * (BA)``, on the base of the headline.
        literal_rates: Learning rates that this loop is tried at.
        max_steps: Steps at most of the loops.
        num_sweep: Fields on which a loop's rate is chosen.
        num_loop: Fields of a loop.
        num: Fields of the engine, the first ones being those of the loop.
        num_train: Further fields that the probe is trained on.
    """

    variants: dict[str, VariantConfig] = field(default_factory=dict)
    headline: str = "best"
    loop_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    literal: RepresentationConfig = RepresentationConfig(form="product")
    literal_rates: tuple[float, ...] = (0.1, 0.2)
    max_steps: int = 400
    num_sweep: int = 4
    num_loop: int = 12
    num: int = 512
    num_train: int = 1000


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(Experiment):
    """The whole benchmark.

    Attributes:
        data: Named source or folder.
        source: Options of the source.
        bases: Training of the base fields by name.
        tasks: Networks whose steps are timed, by name.
        quality: Time to a stated quality; None leaves it out.
        sizes: Time to a stated quality at larger sizes, by name.
        reading: Reading at scale; None leaves it out.
        linear: Building at scale; None leaves it out.
        repetitions: Turns of the contestants; medians are reported.
        scratch: Folder for the stores at scale, removed at the end; on a memory disk, no disk is measured.
    """

    name: str = "fitting"
    data: str = "fashion-mnist"
    source: dict[str, Any] = field(default_factory=dict)
    bases: dict[str, BaseTrainingConfig] = field(default_factory=dict)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    quality: QualityConfig | None = None
    sizes: dict[str, SizeConfig] = field(default_factory=dict)
    reading: ReadingConfig | None = None
    linear: LinearConfig | None = None
    repetitions: int = 5
    out: str = "runs/benchmark"
    scratch: str = "runs/benchmark/scratch"


def unequal(results: dict[str, float]) -> list[str]:
    """Contestants whose fields are too far from those of the loop for their times to be compared."""
    wrong = []
    for key in [key for key in results if key.endswith(".psnr") and not key.endswith(".loop.psnr")]:
        task, who, _ = key.rsplit(".", 2)
        above = results[key] - results[f"{task}.loop.psnr"]
        if above < -PSNR_TOLERANCE_DB or (who == "jax" and above > PSNR_TOLERANCE_DB):
            wrong.append(f"NOT COMPARABLE: {task}: {who} is {above:+.2f} dB from the loop")
    return wrong


def incomparable(results: dict[str, float]) -> list[str]:
    """What makes times incomparable, a line each."""
    return unequal(results) + ends_of_sweeps(results) + short_of_quality(results)


def run(config: BenchmarkConfig) -> dict[str, float]:
    """Every part; returns the numbers of the record."""
    out, source = Path(config.out), open_source(config.data, **config.source)
    for name, training in config.bases.items():
        folder = out / "bases" / name
        with config.parts.timed(f"bases.{name}", there=(folder / "metrics.json").is_file(), folder=folder):
            train_base(source, training, out=folder, progress=show_progress)
    bench = Benchmark(config, source, out)
    for name, task in config.tasks.items():
        bench.time_steps(name, task)
    if config.quality is not None:
        bench.time_to_quality(config.quality)
    for name, size in config.sizes.items():
        bench.add(SizeBenchmark(name, size, config, config.repetitions).measure())
    scratch = Path(config.scratch)
    try:
        if config.reading is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            bench.add(measure_reading(config.reading, scratch / "reading"))
        if config.linear is not None:
            bench.add(measure_linear(config.linear, scratch / "linear"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return bench.results


class Benchmark:
    """The measurements of one run.

    Attributes:
        results: Numbers by dotted name.
    """

    def __init__(self, config: BenchmarkConfig, source, out: Path):
        self.config, self.source, self.out = config, source, out
        self.results: dict[str, float] = {"threads": float(torch.get_num_threads())} | bfloat16_instructions()
        self.items = {
            split: [i for i, own in enumerate(source.splits()) if own == split] for split in ("train", "test")
        }
        self.coords = source[0].coords

    def add(self, numbers: dict[str, float]) -> None:
        """Keep and print some numbers."""
        self.results |= numbers
        for name, value in numbers.items():
            print(f"{name:<44} {value:.4g}", flush=True)

    def representation(self, config: RepresentationConfig, base: str | None) -> Representation:
        """What the numbers of a task are."""
        loaded = BaseField.from_pretrained(self.out / "bases" / base) if config.is_adapter else None
        return Representation.build(config, loaded, **self.source.form.sizes)

    def values(self, num: int) -> Tensor:
        """Values ``(N, P, C)`` of the first test pictures."""
        return torch.stack([self.source[index].values for index in self.items["test"][:num]])

    def time_steps(self, name: str, task: TaskConfig) -> None:
        """Milliseconds per step and field of every contestant, at the same number of steps and the same PSNR."""
        representation = self.representation(task.representation, task.base)
        start = representation.layout.flatten(representation.initial())
        targets = self.values(task.num)
        plain = FitConfig(
            steps=task.steps, learning_rate=task.learning_rate, warmup=0.0, batch_size=task.num, target_psnr=None
        )
        contestants = {
            "ours_all_points": lambda: self._by_engine(representation, start, targets, plain),
            "loop": lambda: self._by_loop(representation, targets[: task.num_loop], plain),
        }
        if task.equal_quality:
            quick = replace(plain, **task.equal_quality)
            contestants["ours"] = lambda: self._by_engine(representation, start, targets, quick)
        if task.jax:
            jax = JaxFields(representation, self.coords, [plain.rate(step) for step in range(task.steps)])
            contestants["jax"] = lambda: jax.fit(start.expand(task.num, -1).contiguous(), targets)
        seconds, scores = self._in_turn(contestants)
        fields = {who: len(scores[who]) * task.steps for who in contestants}
        self._report(name, task, representation, {w: [s / fields[w] for s in seconds[w]] for w in seconds}, scores)

    def _in_turn(self, contestants: dict[str, Callable[[], list[float]]]) -> tuple[dict, dict]:
        """Seconds of every turn and PSNRs of every contestant; the first turn warms up and is not counted."""
        seconds: dict[str, list[float]] = {who: [] for who in contestants}
        scores = {}
        for turn in range(self.config.repetitions + 1):
            for who, contest in contestants.items():
                began = time.perf_counter()
                scores[who] = contest()
                if turn:
                    seconds[who].append(time.perf_counter() - began)
        return seconds, scores

    def _by_engine(self, representation, start: Tensor, targets: Tensor, config: FitConfig) -> list[float]:
        starts = representation.layout.unflatten(start.expand(len(targets), -1))
        grid = self.source.form.grid
        weights = optimise(representation, starts, self.coords, targets, config, grid=grid)
        return _psnr(representation.evaluate(weights, self.coords), targets)

    def _by_loop(self, representation, targets: Tensor, config: FitConfig) -> list[float]:
        outcomes = loop_over(representation, self.coords, targets, config.rate, config.steps)
        return [outcome.psnr for outcome in outcomes]

    def _report(self, name: str, task: TaskConfig, representation, seconds: dict, scores: dict) -> None:
        common = task.num_loop
        peak, flops = matrix_peak(), step_flops(representation, len(self.coords))
        numbers: dict[str, float] = {f"{name}.peak_gflops": peak}
        for who, times in seconds.items():
            median = statistics.median(times)
            numbers |= {
                f"{name}.{who}.ms_per_step": 1e3 * median,
                f"{name}.{who}.ms_per_step_spread": 1e3 * (max(times) - min(times)),
                f"{name}.{who}.fields_per_s": 1 / (median * task.steps),
                f"{name}.{who}.psnr": statistics.fmean(scores[who][:common]),
            }
            if who != "ours":  # all points in each step, so that the work is known
                numbers[f"{name}.{who}.gflops"] = flops / median / 1e9
        ours = "ours" if "ours" in seconds else "ours_all_points"
        for other in seconds.keys() - {"ours", "ours_all_points"}:
            median = statistics.median(seconds[other])
            numbers[f"{name}.ratio_{other}"] = median / statistics.median(seconds[ours])
            numbers[f"{name}.ratio_{other}_all_points"] = median / statistics.median(seconds["ours_all_points"])
        numbers[f"{name}.fraction_of_peak"] = numbers[f"{name}.ours_all_points.gflops"] / peak
        self.add(numbers)

    def time_to_quality(self, config: QualityConfig) -> None:
        """Fields per second to the stated quality, of the engine's variants and of the loops at their best rates."""
        headline = config.variants[config.headline]
        goal = headline.fit.target_psnr
        loop = self.representation(headline.representation, headline.base)
        literal = self.representation(config.literal, headline.base)
        loops = {
            "loop": self._tuned(loop, config.loop_rates, config, goal, "loop"),
            "literal_loop": self._tuned(literal, config.literal_rates, config, goal, "literal_loop"),
        }
        per_field: dict[str, list[float]] = {}
        for who, contest in loops.items():
            seconds, outcomes = timed(contest)
            per_field[who] = [seconds / config.num_loop]
            self._outcomes(who, outcomes, goal)
        for name, variant in config.variants.items():
            turns = self.config.repetitions if name == config.headline else 1
            per_field[name] = [self._variant(name, variant, config, probe=not turn) for turn in range(turns)]
        seconds, _ = timed(loops["loop"])  # before and after the engine's turns
        per_field["loop"].append(seconds / config.num_loop)
        medians = {who: statistics.median(times) for who, times in per_field.items()}
        self.add({f"quality{goal:g}.{who}.ms_per_field": 1e3 * median for who, median in medians.items()})
        best = medians[config.headline]
        self.add(
            {
                f"quality{goal:g}.fields_per_s": 1 / best,
                f"quality{goal:g}.ratio_loop": medians["loop"] / best,
                f"quality{goal:g}.ratio_literal_loop": medians["literal_loop"] / best,
            }
        )

    def _tuned(self, representation, rates, config: QualityConfig, goal: float, who: str) -> Callable:
        """A loop to the stated quality at the best of some rates."""

        def contest(rate: float, num: int) -> list[LoopOutcome]:
            values = self.values(num)
            return loop_over(representation, self.coords, values, lambda step: rate, config.max_steps, goal)

        best, steps = fewest_steps(lambda rate: contest(rate, config.num_sweep), rates)
        self.add({f"quality{goal:g}.{who}.steps_at_rate_{rate:g}": num for rate, num in steps.items()})
        self.add({f"quality{goal:g}.{who}.rate": best})
        return lambda: contest(best, config.num_loop)

    def _outcomes(self, who: str, outcomes: list[LoopOutcome], goal: float) -> None:
        reached = sum(outcome.psnr >= goal for outcome in outcomes) / len(outcomes)
        steps = statistics.fmean(outcome.steps for outcome in outcomes)
        self.add({f"quality{goal:g}.{who}.reached": reached, f"quality{goal:g}.{who}.steps": steps})

    def _variant(self, name: str, variant: VariantConfig, config: QualityConfig, *, probe: bool) -> float:
        """Seconds per field of the engine itself, metrics and hashes of every row included."""
        representation = self.representation(variant.representation, variant.base)
        test = self.items["test"][: config.num]
        list(fit(representation, read_signals(self.source, test[:16]), variant.fit))  # warms up
        seconds, results = timed(lambda: list(fit(representation, read_signals(self.source, test), variant.fit)))
        if probe:
            prefix = f"quality{variant.fit.target_psnr:g}.{name}"
            reached = sum(result.status == "ok" for result in results) / len(results)
            steps = statistics.fmean(result.metrics["steps"] for result in results if result.weights is not None)
            self.add({f"{prefix}.reached": reached, f"{prefix}.steps": steps})
            self.add({f"{prefix}.numbers": float(representation.layout.num_trainable)})
            self.add({f"{prefix}.probe_accuracy": self._probe(representation, variant, config, results)})
        return seconds / len(test)

    def _probe(self, representation, variant: VariantConfig, config: QualityConfig, test: list) -> float:
        """Accuracy of a logistic regression on the weights, fitted on training pictures and tested on ``test``."""
        train = self.items["train"][: config.num_train]
        fitted = list(fit(representation, read_signals(self.source, train), variant.fit))
        mask = representation.layout.trainable()
        parts = []
        for results in (fitted, test):
            kept = sorted((r for r in results if r.weights is not None), key=lambda result: result.index)
            features = torch.stack([representation.layout.flatten(result.weights)[mask] for result in kept])
            labels = [self.source.label_names.index(result.label) for result in kept]
            parts += [features.numpy(), torch.tensor(labels).numpy()]
        return logistic_probe(Split(*parts), seed=0)


def _psnr(values: Tensor, targets: Tensor) -> list[float]:
    return (-10 * (values - targets).square().mean((1, 2)).log10()).tolist()


if __name__ == "__main__":
    sys.exit(main(run, incomparable))
