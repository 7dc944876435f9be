"""Fields by the defaults at every size of pictures: how close they are, how many numbers they take, and how long.

For each row a base field is trained and held-out pictures are fitted exactly as ``wsrl base`` and ``wsrl build`` do
without a configuration; with ``sizes`` other sizes are tried, from which the table of defaults was chosen.

    python -m pipelines.resolution --config configs/benchmark/resolution.yaml
"""

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pipelines.experiment import Experiment, fingerprint, main
from pipelines.heldout_pixels import heldout_psnr
from pipelines.photographs import cut_patches
from wsrl.cli.parser import show_progress
from wsrl.fields import Representation
from wsrl.fitting.defaults import default_fit, default_representation
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.signals import open_source
from wsrl.signals.source import Source, training_indices
from wsrl.training.base import TrainedBase, default_base, heldout_indices, train_base

KIND = "mlora_asym"


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """Pictures of one size.

    Attributes:
        data: ``photographs`` for patches of Debian's, or a named source.
        source: Options of the source.
        size: Pixels of a side.
        mode: ``L`` or ``RGB``.
        num_train: Pictures that the base field may see.
        num_fields: Held-out pictures that are fitted.
    """

    data: str
    source: dict[str, Any] = field(default_factory=dict)
    size: int
    mode: str = "RGB"
    num_train: int = 2500
    num_fields: int = 24


@dataclass(frozen=True, kw_only=True)
class ResolutionConfig(Experiment):
    """The whole experiment.

    Attributes:
        rows: Pictures by name.
        traded: Rows that are also fitted with half and with twice the rank.
        num_between: Held-out pictures of each row that are also fitted to a part of their pixels.
        num_timed: Held-out pictures of each row whose fits are timed.
        seed: Seed of the pixels that are left out.
    """

    folder: ClassVar[str] = "representations"

    rows: dict[str, RowConfig] = field(default_factory=dict)
    traded: tuple[str, ...] = ()
    num_between: int = 8
    num_timed: int = 4
    seed: int = 0
    out: str = "runs/resolution"


def run(config: ResolutionConfig) -> dict[str, float]:
    """Every row of the experiment; returns the numbers of the record."""
    results: dict[str, float] = {}
    for name, row in config.rows.items():
        path, how = Path(config.out) / f"{name}.json", fingerprint([asdict(row), config.num_between, config.seed])
        found = config.kept(name, path, lambda name=name, row=row: measure(name, row, config), how)
        print(name, {key: round(value, 3) for key, value in found.items()}, file=sys.stderr, flush=True)
        results |= {f"{name}.{key}": value for key, value in found.items()}
    how = fingerprint([str(config.rows), config.num_timed])
    path = Path(config.out) / "times.json"
    results |= config.kept("times", path, lambda: time_rows(config), how)  # alone, after everything else
    return results | traded(config)


def time_rows(config: ResolutionConfig) -> dict[str, float]:
    """Milliseconds per field of every row, one after the other in one run."""
    found = {}
    for name, row in config.rows.items():
        source, base, signals = prepared(name, row, config)
        how, kind = default_fit(KIND, source.form), default_representation(KIND, source.form)
        representation = Representation.build(kind, base.field, **source.form.sizes)
        scores = fitted(representation, signals[: config.num_timed], how)
        found[f"{name}.ms_per_field"] = scores["ms_per_field"]
    return found


def traded(config: ResolutionConfig) -> dict[str, float]:
    """Rows with half and with twice the rank."""
    results: dict[str, float] = {}
    for name in config.traded:
        path, how = Path(config.out) / f"{name}.trade.json", fingerprint([asdict(config.rows[name])])
        found = config.kept(f"{name}.trade", path, lambda name=name: trade(name, config.rows[name], config), how)
        results |= {f"{name}.{key}": value for key, value in found.items() if "ms_per" not in key}
    return results


def open_row(row: RowConfig, out: Path) -> Source:
    """The pictures of a row."""
    if row.data == "photographs":
        num = {"train": row.num_train, "test": row.num_fields}
        patches = cut_patches(out / f"patches_{row.size}_{row.num_train}_{row.num_fields}", row.size, num)
        return open_source(str(patches), size=row.size, mode=row.mode)
    return open_source(row.data, **row.source, size=row.size, mode=row.mode)


def prepared(name: str, row: RowConfig, config: ResolutionConfig) -> tuple[Source, TrainedBase, list]:
    """The source of a row, its base field, and its held-out pictures."""
    source = open_row(row, Path(config.out))
    train = training_indices(source)
    training = default_base(source.form, min(len(train), row.num_train))
    base = train_base(source, training, out=Path(config.out) / f"{name}.base", progress=show_progress)
    heldout = heldout_indices(source, train, training.num_signals)
    some = heldout[:: max(1, len(heldout) // row.num_fields)][: row.num_fields]
    return source, base, list(read_signals(source, some))


def measure(name: str, row: RowConfig, config: ResolutionConfig) -> dict[str, float]:
    """Train the base field of a row, fit its held-out pictures, and say how good and how fast that is."""
    started = time.perf_counter()
    source, base, signals = prepared(name, row, config)
    found = {"base_s": time.perf_counter() - started} | dict(base.metrics)
    how = default_fit(KIND, source.form)
    representation = Representation.build(default_representation(KIND, source.form), base.field, **source.form.sizes)
    found |= fitted(representation, signals, how)
    # one by one: large ones together would not fit the processor's caches
    some = [signal for _, _, signal in signals[: config.num_between]]
    unseen = [heldout_psnr(representation, [signal], how, config.seed).item() for signal in some]
    return found | {"psnr_between": float(np.mean(unseen))}


def trade(name: str, row: RowConfig, config: ResolutionConfig) -> dict[str, float]:
    """Parameters and quality with half and with twice the rank."""
    source, base, signals = prepared(name, row, config)
    how, usual, found = default_fit(KIND, source.form), default_representation(KIND, source.form), {}
    for word, rank in (("half_rank", usual.rank // 2), ("twice_rank", usual.rank * 2)):
        representation = Representation.build(replace(usual, rank=rank), base.field, **source.form.sizes)
        scores = fitted(representation, signals, how)
        found |= {f"{word}.{key}": scores[key] for key in ("numbers", "psnr_mean", "psnr_min")}
    return found


def fitted(representation: Representation, signals: list, how: FitConfig) -> dict[str, float]:
    """Quality and time of the fields of some signals."""
    started = time.perf_counter()
    results = list(fit(representation, signals, how))
    seconds = time.perf_counter() - started
    scores = {key: np.array([result.metrics[key] for result in results]) for key in ("psnr", "ssim")}
    return {
        "numbers": representation.layout.num_trainable,
        "rank": representation.config.rank,
        "width": representation.field_config.width,
        "steps": how.steps,
        "num_fields": len(results),
        "psnr_mean": float(scores["psnr"].mean()),
        "psnr_5th": float(np.percentile(scores["psnr"], 5)),
        "psnr_min": float(scores["psnr"].min()),
        "ssim_mean": float(scores["ssim"].mean()),
        "ms_per_field": 1000 * seconds / len(results),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.exit(main(run))
