"""Representations and fits that suit the kind of representation and the grid of the data.

The rates come from the sweep of ``pipelines/representations.py``, which its page shows; those of additive adapters
and standalone networks are half of the best, where no field fits badly.
"""

from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.engine import FitConfig

Grid = tuple[int, ...] | None
LEARNING_RATES = {
    "mlp": 8e-2,
    "mlp_asym": 8e-2,
    "lora": 4e-2,
    "lora_asym": 4e-2,
    "mlora": 2e-1,
    "mlora_asym": 2e-1,
}


def is_small(grid: Grid) -> bool:
    """Whether a signal has few points, such as an 8x8 digit: there a field must be kept smooth between them."""
    return grid is not None and max(grid) <= 12


def default_representation(kind: str) -> RepresentationConfig:
    """The representation of a kind; standalone networks have about as many parameters as an adapter of width 64."""
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
