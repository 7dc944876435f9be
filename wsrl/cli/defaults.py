"""Configurations that fit the kind and the size of the data, for stages that are run without one.

The rates were chosen by the sweep of ``pipelines/representations.py``; the README shows it.
"""

from wsrl.fields.base import BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.training.base_field import BaseTrainingConfig, Stage

# Points of a base training step: what stays in the cache of a CPU core with activations of width 64.
POINTS_PER_STEP = 16_384

LEARNING_RATES = {
    "mlp": 1e-2,
    "mlp_asym": 1e-2,
    "lora": 1e-2,
    "lora_asym": 1e-2,
    "mlora": 1e-1,
    "mlora_asym": 1e-1,
}


def default_field(grid: tuple[int, ...]) -> FieldConfig:
    """A trunk for signals on ``grid``: wider, with higher frequencies, for finer grids."""
    side = max(grid)
    if side <= 12:
        return FieldConfig(width=32, depth=3, num_frequencies=16, frequency_scale=0.75)
    return FieldConfig(width=64, depth=3, num_frequencies=32, frequency_scale=min(4.0, max(1.0, side / 14)))


def default_base(grid: tuple[int, ...], num_signals: int) -> BaseTrainingConfig:
    """Base training in stages of equal cost: many coarse signals a step, then few full ones."""
    num_points = 1
    for n in grid:
        num_points *= n
    stages, shares = [], (0.25, 0.5, 1.0) if min(grid) >= 16 else (0.5, 1.0)
    for share in shares:
        points = max(1, round(num_points * share ** len(grid)))
        batch = max(4, min(512, POINTS_PER_STEP // points))
        stages.append(Stage(resolution=share, batch_size=batch, steps=1200))
    return BaseTrainingConfig(
        model=BaseFieldConfig(field=default_field(grid)), stages=tuple(stages), num_signals=min(num_signals, 4000)
    )


def default_representation(kind: str, grid: tuple[int, ...] = (28, 28)) -> RepresentationConfig:
    """The representation of a kind: rank 2 for signals of a few dozen points, 4 otherwise."""
    return RepresentationConfig(kind=kind, rank=2 if max(grid) <= 12 else 4)


def default_fit(kind: str, grid: tuple[int, ...] = (28, 28)) -> FitConfig:
    """Steps and rate for a kind."""
    small = max(grid) <= 12
    return FitConfig(steps=250 if small else 400, learning_rate=LEARNING_RATES[kind], batch_size=64 if small else 16)
