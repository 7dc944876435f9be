"""What all sources of pictures share: their options, and how an array becomes a signal.

Letters: H height, W width, C channels.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsrl.errors import UserError
from wsrl.signals.form import SignalForm
from wsrl.signals.pictures.image import SMALLEST_SIDE, values_to_signal
from wsrl.signals.signal import Signal
from wsrl.signals.source import Source
from wsrl.signals.source_options import SourceOptions, is_whole

MODES = ("L", "RGB")


@dataclass(frozen=True, kw_only=True)
class PictureOptions(SourceOptions):
    """Which pictures of a source are taken, and in which form.

    Attributes:
        size: Side of the square picture, or (height, width), in pixels; None is the source's own size.
        mode: ``L`` for one grey channel, ``RGB`` for three; None is the source's own.
    """

    size: int | tuple[int, int] | None = None
    mode: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.mode is not None and self.mode not in MODES:
            raise UserError(f"mode is {self.mode!r}", allowed=", ".join(MODES))
        if self.size is not None:
            object.__setattr__(self, "size", checked_size(self.size))


def checked_size(size: object) -> tuple[int, int]:
    """One side of a square, or a pair, as (height, width).

    Raises:
        UserError: It is neither, or a side is too small to be a picture.
    """
    sides = (size, size) if is_whole(size) else size
    pair = isinstance(sides, Sequence) and not isinstance(sides, str) and len(sides) == 2
    if not (pair and all(is_whole(side) and side >= SMALLEST_SIDE for side in sides)):
        raise UserError(f"size is {size!r}", allowed=f"one side, or height and width, each from {SMALLEST_SIDE} pixels")
    return tuple(sides)


class PictureSource(Source):
    """Pictures of one size, read as arrays."""

    def __init__(self, *, grid: Sequence[int], channels: int, **listing):
        """As :class:`Source`; all pictures have one ``grid`` (height, width) and number of channels."""
        super().__init__(form=SignalForm(in_features=2, out_features=channels, grid=tuple(grid)), **listing)

    def read(self, position: int, *, id: str, label: str | None, split: str | None) -> Signal:
        """As :meth:`Source.read`."""
        return values_to_signal(self.read_values(position), id=id, label=label, split=split)

    @abstractmethod
    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` in [0, 1], float32, of the signal at a place of the full listing."""
