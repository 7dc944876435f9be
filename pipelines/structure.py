"""How structured the weights of every representation are: fits of the same signals from starts that lie apart.

Every signal is fitted from one start and from others ``lambda`` away; the pairs of fields are compared by cosine
similarity, overlap of their factors, effective rank and the barrier of the loss on the straight line between them, and
adapters by their products too, which do not depend on the gauge of the factors. In the rows ``random`` every field of
either set has a start of its own.

    python -m pipelines.structure --config configs/fashion_mnist/structure.yaml

Source: arXiv 2512.01759, section on the structure of weight spaces.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pipelines.experiment import FieldExperiment, main
from wsrl.cli.parser import show_progress
from wsrl.durable import write_bytes
from wsrl.evaluation.structure_fits import (
    LAMBDAS,
    Fits,
    fit_from,
    fit_from_own_starts,
    measure_pair,
    measure_starts,
    own_starts,
    read_usable,
    starts_of,
)
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, field_seed
from wsrl.progress import Progress
from wsrl.report.figures import Series, draw_lines, new_figure, save_figure
from wsrl.signals.signal import Signal
from wsrl.signals.source import prepare_signals
from wsrl.symmetry.matching.barriers import NUM_POINTS

PANELS = {
    "cosine": ("cosine similarity of the weights", False),
    "overlap": ("subspace overlap of the factors", False),
    "effective_rank": ("effective rank (dimensions)", False),
    "barrier": ("barrier of the loss (mean squared error)", True),
    "barrier_relative": ("barrier / loss of the ends", True),
    "psnr_path": ("least PSNR on the path (dB)", False),
}


@dataclass(frozen=True, kw_only=True)
class StructureKind:
    """One line of the figure.

    Attributes:
        representation: What the weights are.
        learning_rate: Its learning rate.
    """

    representation: RepresentationConfig
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class StructureConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        base_source: Options of the source of the base field, which is not trained on the signals.
        kinds: Representations by name.
        fit: How fields are fitted, but for the learning rate.
        lambdas: Distances of the starts.
        num: Number of signals.
        num_points: Points of the path between two fields.
        random_starts: Compare fields that each have a start of their own, too.
        picture: PNG file of the figure; None for none.
        seed: Seed of the noise of the second starts and of the bootstrap.
    """

    base_source: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, StructureKind] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    lambdas: tuple[float, ...] = LAMBDAS
    num: int = 50
    num_points: int = NUM_POINTS
    random_starts: bool = True
    picture: str | None = None
    out: str = "runs/structure"
    seed: int = 1


def run(config: StructureConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    source = config.open()
    base = None
    if any(kind.representation.is_adapter for kind in config.kinds.values()):
        config.train_base()
        base = BaseField.from_pretrained(config.base_folder)
    indices = range(min(config.num, len(source)))
    prepare_signals(source, indices, show_progress)
    signals = read_usable(source, indices)
    results: dict[str, float] = {"run.num_signals": len(signals)}
    for name, kind in config.kinds.items():
        representation = Representation.build(kind.representation, base, **source.form.sizes)
        results[f"{name}.num_trainable"] = representation.layout.num_trainable
        measures = measure(name, kind, representation, signals, config)
        results |= {f"{name}.{key}": value for key, value in measures.items()}
        last = [f"{measure} {measures[f'lambda_{config.lambdas[-1]:g}.{measure}']:.3g}" for measure in PANELS]
        print(f"{name} at lambda {config.lambdas[-1]:g}: {', '.join(last)}", file=sys.stderr, flush=True)
    if config.picture is not None:
        draw(results, config)
    return results


def measure(name: str, kind: StructureKind, representation, signals, config: StructureConfig) -> dict[str, float]:
    """Every measure of one kind at every distance, with its confidence band."""
    fit, folder = replace(config.fit, learning_rate=kind.learning_rate), Path(config.out) / name
    num_sets = len({0.0, *config.lambdas}) + (2 if config.random_starts else 0)
    with show_progress(f"{name}: fields", len(signals) * num_sets) as shown:

        def fitted(distance: float) -> Fits:
            start = starts_of(representation, distance, config.seed)
            asked = [representation.to_dict(), asdict(fit), config.seed]
            kept = KeptFits(folder, f"lambda_{distance:g}", asked, config)
            return kept.fits(
                signals, lambda: fit_from(representation, signals, fit, start, shown), lambda _: start, shown
            )

        def fitted_from_own_starts(number: int) -> Fits:
            seeded = replace(fit, seed=field_seed(config.seed, f"random {number}"))
            kept = KeptFits(folder, f"random_{number}", [representation.to_dict(), asdict(seeded)], config)
            return kept.fits(
                signals,
                lambda: fit_from_own_starts(representation, signals, seeded, shown),
                lambda ids: own_starts(representation, ids, seeded.seed),
                shown,
            )

        sizes = {"seed": config.seed, "num_points": config.num_points}
        found = measure_starts(representation, signals, fitted, config.lambdas, **sizes)
        if config.random_starts:
            pair = fitted_from_own_starts(0), fitted_from_own_starts(1)
            own = measure_pair(representation, signals, pair, **sizes)
            found |= {f"random.{name}": value for name, value in own.items()}
    return found


@dataclass(frozen=True)
class KeptFits:
    """Fits that an earlier run may have left.

    Attributes:
        folder: Folder of the kind.
        name: What they were fitted from.
        asked: Everything that decides them but for the signals, as plain values.
        config: The experiment.
    """

    folder: Path
    name: str
    asked: list
    config: StructureConfig

    def fits(
        self,
        signals: list[Signal],
        make: Callable[[], Fits],
        start: Callable[[list[str]], dict[str, Tensor]],
        shown: Progress,
    ) -> Fits:
        """Read the fits where they are, else make and keep them.

        Args:
            signals: The signals.
            make: Fits them.
            start: From the ids of the fields to what they were fitted from.
            shown: The loop's progress.
        """
        # The file is named by all that decides the fits.
        asked = json.dumps([*self.asked, [signal.id for signal in signals]], sort_keys=True, default=str)
        path = self.folder / f"{self.name}.{hashlib.sha256(asked.encode()).hexdigest()[:12]}.safetensors"
        there = path.is_file()
        with self.config.parts.timed(f"fits.{self.folder.name}.{self.name}", there=there):
            if not there:
                fits = make()
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, save(fits.weights, metadata={"ids": json.dumps(fits.ids)}))
                return fits
        shown.advance(len(signals))
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            ids = json.loads(file.metadata()["ids"])
        return Fits(ids, weights, start(ids))


def draw(results: dict[str, float], config: StructureConfig) -> None:
    """One panel per measure, one line per kind, with confidence bands."""
    figure, axes = new_figure(2, 3, width=4.3, height=3.6)
    for axis, (measure_name, (label, log_y)) in zip(axes.flat, PANELS.items()):
        # A field has no barrier to itself: what rounding leaves of it would stretch a logarithmic axis.
        distances = [distance for distance in config.lambdas if distance or not log_y]
        series = {}
        for name in config.kinds:
            keys = [f"{name}.lambda_{distance:g}.{measure_name}" for distance in distances]
            series[name] = Series(distances, *([results[key + end] for key in keys] for end in ("", "_low", "_high")))
        draw_lines(axis, series, "distance λ of the starts", label, log_y=log_y)
        axis.set_xlim(-0.04, 1.04)
        axis.get_legend().remove()
    lines, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=-(-len(names) // 2), fontsize=9, handlelength=4)
    save_figure(figure, config.picture)


if __name__ == "__main__":
    sys.exit(main(run))
