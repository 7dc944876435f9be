"""scikit-learn's 1,797 handwritten digits, 8x8 grey, values out of 16.

The split is fixed for ever: a digit is a test digit when the first 8 bytes of the SHA-256 of its id, read as a
big-endian number, are divisible by 5 (377 of 1,797).
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from wsrl.durable import text_number
from wsrl.signals.pictures.image import resize_values, with_mode
from wsrl.signals.pictures.picture_source import PictureOptions, PictureSource


@dataclass(frozen=True, kw_only=True)
class DigitsOptions(PictureOptions):
    """Options of ``digits``: the common ones; 8x8 grey without them."""


class Digits(PictureSource):
    """The digits of scikit-learn, ids ``digits/00000`` to ``digits/01796``, labels ``0`` to ``9``."""

    def __init__(self, options: DigitsOptions):
        """Read the data that ship inside scikit-learn."""
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        bunch = load_digits()
        self._values = (bunch.images / 16).astype(np.float32)[..., None]  # (N, 8, 8, 1)
        ids = [f"digits/{index:05d}" for index in range(len(self._values))]
        super().__init__(
            name="digits",
            ids=ids,
            labels=[str(digit) for digit in bunch.target],
            splits=[split_of(id) for id in ids],
            grid=options.size or self._values.shape[1:3],
            channels=3 if options.mode == "RGB" else 1,
            options=options,
            details={"sha256": hashlib.sha256(self._values.tobytes()).hexdigest()},
        )

    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` of one digit."""
        return with_mode(resize_values(self._values[position], self.form.grid), self.options.mode)


def split_of(id: str) -> str:
    """``test`` for about a fifth of all ids, the same on every machine, else ``train``."""
    number = text_number(id)
    return "test" if number % 5 == 0 else "train"
