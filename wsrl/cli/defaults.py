"""Configurations that fit the kind and the size of the data, for stages that are run without one.

The rates come from the sweep of ``pipelines/representations.py``, which the README shows; those of additive adapters
and standalone networks are half of the best, where no field fits badly.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from wsrl.fields.base import BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.engine import FitConfig

if TYPE_CHECKING:
    from wsrl.training.base_field import BaseTrainingConfig

LEARNING_RATES = {
    "mlp": 8e-2,
    "mlp_asym": 8e-2,
    "lora": 4e-2,
    "lora_asym": 4e-2,
    "mlora": 2e-1,
    "mlora_asym": 2e-1,
}


Grid = tuple[int, ...] | None


def is_small(grid: Grid) -> bool:
    """Whether a signal has few points, such as an 8x8 digit: there a field must be kept smooth between them."""
    return grid is not None and max(grid) <= 12


def default_field(grid: Grid) -> FieldConfig:
    """A trunk for signals on ``grid``: wider, with higher frequencies, for finer grids; for shapes on none."""
    if grid is None:
        return FieldConfig(width=64, depth=3, num_frequencies=32, frequency_scale=0.5)
    if is_small(grid):
        return FieldConfig(width=32, depth=3, num_frequencies=16, frequency_scale=0.4, activation="silu")
    return FieldConfig(width=64, depth=3, num_frequencies=32, frequency_scale=min(4.0, max(grid) / 14))


def default_base(grid: Grid, num_signals: int) -> BaseTrainingConfig:
    """Base training in stages of equal cost a step: many coarse signals, then few full ones."""
    from wsrl.training.base_data import Stage
    from wsrl.training.base_field import BaseTrainingConfig  # loads Lightning, which a build does without

    if grid is None:
        return BaseTrainingConfig(
            model=BaseFieldConfig(field=default_field(grid)),
            stages=(
                Stage(resolution=1 / 64, batch_size=48, steps=800),
                Stage(resolution=1 / 16, batch_size=12, steps=800),
            ),
            num_signals=min(num_signals, 1000),
            num_heldout=32,
            heldout_steps=100,
        )

    shares, steps, points_per_step = (0.25, 0.5, 1.0), 1500, 12_544
    if is_small(grid):
        shares, steps, points_per_step = (0.5, 1.0), 800, 4096
    stages = []
    for share in shares:
        points = max(1, round(prod(grid) * share ** len(grid)))
        batch = max(4, min(512, points_per_step // points))
        stages.append(Stage(resolution=share, batch_size=batch, steps=steps))
    return BaseTrainingConfig(
        model=BaseFieldConfig(field=default_field(grid)), stages=tuple(stages), num_signals=min(num_signals, 4000)
    )


def default_representation(kind: str) -> RepresentationConfig:
    """The representation of a kind; standalone networks have about as many numbers as an adapter of width 64."""
    return RepresentationConfig(kind=kind, rank=4)


def default_fit(kind: str, grid: Grid) -> FitConfig:
    """Steps and rate for a kind; on small grids short fits, which stay near the base and smooth between the points."""
    if grid is None:
        return FitConfig(steps=300, learning_rate=LEARNING_RATES[kind], beta2=0.95, points_per_step=1536)
    if is_small(grid):
        return FitConfig(steps=60, learning_rate=LEARNING_RATES[kind] / 4)
    if kind.startswith("mlora"):
        # A third of the points in each step and a shorter memory in Adam: on Fashion-MNIST the quality and the readings
        # of the sweep's recipe in a third of the time.
        return FitConfig(steps=250, learning_rate=LEARNING_RATES[kind], beta2=0.95, interleave=3)
    return FitConfig(steps=250, learning_rate=LEARNING_RATES[kind])
