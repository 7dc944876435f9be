"""Pictures in a NumPy file.

A ``.npy`` file holds an array (N, H, W) or (N, H, W, C) and is memory-mapped; a ``.npz`` file holds such an array
called ``images`` and, if they are known, ``labels`` and ``splits``. Integers are divided by the largest value of their
type where the file uses that range, and by 255 where they are wider than 8 bits and the file ends near 255, which is
said; a file of other integers is refused until the option ``white`` gives its largest value. Floating-point values have
to be within [0, 1], or [0, ``white``]. Channels are 1, 3, or 4 (transparency, composited over white).
"""

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsrl.durable import file_sha256
from wsrl.errors import SignalError, UserError
from wsrl.signals.pictures.image import SMALLEST_SIDE, resize_values, with_mode
from wsrl.signals.pictures.picture_source import PictureOptions, PictureSource
from wsrl.signals.split_names import split_name

EXTENSIONS = (".npy", ".npz")
BLOCK = 1024  # pictures that are looked at together
EIGHT_BITS = 255
SIDE_ARRAYS = ("labels", "splits")


@dataclass(frozen=True, kw_only=True)
class ArrayOptions(PictureOptions):
    """Options of a NumPy file: the common ones; its own size and channels without them.

    Attributes:
        white: The value that becomes 1, such as 255, or 4095 for 12 bits; None to judge by the type and the values.
    """

    white: float | None = None

    def __post_init__(self):
        super().__post_init__()
        number = isinstance(self.white, int | float) and not isinstance(self.white, bool)
        if self.white is not None and not (number and 0 < self.white < float("inf")):
            raise UserError(f"white is {self.white!r}", allowed="a number above 0, such as 255")

    def to_dict(self) -> dict:
        """As ``SourceOptions.to_dict``; without ``white`` where it is not given, as in stores of earlier versions."""
        return {name: value for name, value in super().to_dict().items() if name != "white" or value is not None}


class ArraySource(PictureSource):
    """The pictures of a NumPy file, ids ``<file name>/00000`` and on."""

    def __init__(self, path: str | os.PathLike, options: ArrayOptions):
        """Open the file.

        Raises:
            UserError: The file or the shape or type of an array in it cannot be used.
        """
        self.path = Path(path).absolute()
        arrays = load_arrays(self.path)
        self._images = check_images(self.path, arrays["images"])
        self._mapped = isinstance(self._images, np.memmap)
        self._white, self.notes = white_of(self.path, self._images, options.white)
        num, height, width = self._images.shape[:3]
        channels = 1 if self._images.shape[-1] == 1 else 3
        super().__init__(
            name=self.path.stem,
            ids=[f"{self.path.stem}/{index:05d}" for index in range(num)],
            labels=side_array(self.path, arrays, "labels", num),
            splits=[split and split_name(split) for split in side_array(self.path, arrays, "splits", num)],
            grid=options.size or (height, width),
            channels={"L": 1, "RGB": 3, None: channels}[options.mode],
            options=options,
            details={
                "sha256": file_sha256(self.path),
                "shape": list(self._images.shape),
                "dtype": str(self._images.dtype),
            },
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_images": None} if self._mapped else self.__dict__  # map again, do not send the data

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self._mapped:
            self._images = check_images(self.path, load_arrays(self.path)["images"])

    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` of one picture.

        Raises:
            SignalError: It holds NaN or infinity, or leaves [0, 1].
        """
        values = scale(self._images[position], self._white)
        where = f"{self.path}, row {position}"
        if not np.isfinite(values).all():
            raise SignalError(f"{where}: NaN or infinite values")
        if values.min() < 0 or values.max() > 1:
            raise SignalError(
                f"{where}: values from {values.min() * self._white:g} to {values.max() * self._white:g} of type "
                f"{self._images.dtype}",
                allowed=f"floating-point values within [0, 1], or integers from 0, here up to {self._white:g}",
                do="scale the array, save it as uint8, or give its largest value: --source '{white: 255}'",
            )
        if values.shape[-1] == 4:
            alpha = values[..., 3:]
            values = values[..., :3] * alpha + (1 - alpha)
        return with_mode(resize_values(values, self.form.grid), self.options.mode)


def scale(row: np.ndarray, white: float) -> np.ndarray:
    """Values of a row as float32."""
    return row.astype(np.float32) if white == 1 else (row / np.float64(white)).astype(np.float32)


def white_of(path: Path, images: np.ndarray, asked: float | None) -> tuple[float, tuple[str, ...]]:
    """The value that becomes 1, and what the user should know about it.

    Raises:
        UserError: They are integers that end far below the largest value of their type, so that they would be black.
    """
    if asked is not None or images.dtype.kind not in "ui":
        return asked or 1, ()
    blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
    top, largest = np.iinfo(images.dtype).max, max(int(block.max()) for block in blocks)
    wide = images.dtype.itemsize > 1
    # a dark picture of 8 bits may end anywhere; wider ones are often a smaller range in a larger type
    if largest <= 0 or largest > (top // 2 if wide else top // 8):
        return top, ()
    if wide and EIGHT_BITS // 2 < largest <= EIGHT_BITS:
        return EIGHT_BITS, (
            f"{images.dtype} with values up to {largest}, read as 0 to 255; white: {top} for 0 to {top}",
        )
    raise UserError(
        f"{path} has integers of type {images.dtype} that end at {largest}, of {top} at most: their range is not known",
        allowed=f"values up to about {top}{', or to 255' if wide else ''}, or the option white",
        do=f"give the value that is white, for example --source '{{white: {likely_white(largest)}}}'",
    )


def likely_white(largest: int) -> int:
    """The end of the range that values seem to have: 1, 16, 100, or that of the fewest bits."""
    return largest if largest in (1, 16, 100) else 2 ** largest.bit_length() - 1


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; that of a ``.npy`` file, or the only picture array of a ``.npz``, is ``images``.

    Raises:
        UserError: It is damaged, holds Python objects, or does not say which array has the pictures.
    """
    try:
        if path.suffix.lower() == ".npy":
            return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as NumPy arrays ({' '.join(str(error).split())})",
            allowed="a .npy or .npz file without Python objects",
            do="save it again with numpy.save or numpy.savez",
        ) from error
    others = [name for name in arrays if name not in SIDE_ARRAYS]
    if "images" not in arrays and len(others) == 1:
        arrays["images"] = arrays.pop(others[0])
    if "images" not in arrays:
        allowed = "one array called images; labels and splits beside it"
        raise UserError(f"{path} holds {', '.join(arrays) or 'no array'}", allowed=allowed)
    return arrays


def check_images(path: Path, images: np.ndarray) -> np.ndarray:
    """The pictures as ``(N, H, W, C)``.

    Raises:
        UserError: Shape or type are not those of pictures.
    """
    allowed = f"(N, H, W) or (N, H, W, C) with N from 1, sides from {SMALLEST_SIDE} and 1, 3 or 4 channels"
    shaped = images[..., None] if images.ndim == 3 else images
    channels_fit = shaped.ndim == 4 and shaped.shape[-1] in (1, 3, 4)
    if not (channels_fit and len(shaped) and min(shaped.shape[1:3]) >= SMALLEST_SIDE):
        raise UserError(f"{path} has an array of shape {images.shape}", allowed=allowed)
    if images.dtype.kind not in "buif":
        raise UserError(f"{path} has an array of type {images.dtype}", allowed="integers, booleans or real numbers")
    return shaped


def side_array(path: Path, arrays: dict[str, np.ndarray], name: str, num: int) -> list[str | None]:
    """``labels`` or ``splits`` as ``num`` texts, one for each picture; all None where the file has no such array."""
    if name not in arrays:
        return [None] * num
    array = arrays[name]
    if array.shape != (num,) or array.dtype.kind not in "buiU":
        raise UserError(
            f"{path} has {name} of shape {array.shape} and type {array.dtype}",
            allowed=f"{num} integers or texts, one for each picture",
        )
    return [str(item) for item in array.tolist()]
