"""Pictures to signals and back.

What a picture becomes: its first frame, turned upright by its EXIF orientation; transparency composited over white;
colour to grey by Pillow's ``L`` (ITU-R 601 luma); 8-bit values divided by 255, 16-bit grey by 65,535, 12-bit by
4,095 (Pillow reads 16-bit colour as 8-bit), and inverted where the 0 of a TIFF is white; the largest centred rectangle
of the wanted proportions, resampled with an antialiased Lanczos filter. A picture that has the wanted size already is
not resampled. Colour profiles are ignored.

Letters: H height, W width, C channels, P = H * W points.
"""

import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin
from torch import Tensor

from wsrl.errors import SignalError, one_line, printable
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

MAX_PIXELS = 64 * 2**20
SMALLEST_SIDE = 2
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
# Forms of TIFF that Pillow decodes where 0 is black, and does not know where 0 is white: byte order, photometric
# interpretation, sample format, order of bits, bits, extra samples.
for _order, _bits, _decoded in ((b"MM", 16, ("I;16B", "I;16B")), (b"II", 12, ("I;16", "I;12"))):
    TiffImagePlugin.OPEN_INFO.setdefault((_order, WHITE_IS_ZERO, (1,), 1, (_bits,), ()), _decoded)
# What Pillow's decoders raise on damaged files, beside OSError: they do not wrap their parsers.
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_picture(path: Path, size: tuple[int, int], mode: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file as values ``(H, W, C)``, float32 in [0, 1].

    Args:
        path: Picture file.
        size: Height and width to resize and crop to.
        mode: ``L`` or ``RGB``.
        max_pixels: Largest number of pixels that is decoded; the header is checked before.

    Raises:
        SignalError: The file cannot be used; the message names it and the reason in one line.
    """
    check_regular(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damaged metadata, which Pillow skips
        with open_picture(path) as picture:
            check_dimensions(path, picture.size, max_pixels)
            upright = decode(path, picture, mode)
    values = to_values(resize_and_crop(upright, size)).clip(0, 1)  # Lanczos overshoots at edges
    return with_mode(values, mode)


def check_regular(path: Path) -> None:
    """Refuse what would block or cannot be opened: pipes, devices, dangling links."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise SignalError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    if not regular:
        raise SignalError(f"{printable(path)}: not a regular file")


def open_picture(path: Path) -> Image.Image:
    """Open a picture, reading its header only.

    Raises:
        SignalError: It is no picture, cannot be read, or its header announces a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_dimensions has the stricter limit
            warnings.simplefilter("ignore", UserWarning)  # of damaged metadata, which Pillow skips
            return Image.open(path)
    except Image.UnidentifiedImageError as error:
        if starts_like_tiff(path):
            raise SignalError(
                f"{printable(path)}: a TIFF in a form that Pillow does not read, or its header is damaged",
                allowed="8 or 16 bits without a sign, or 32-bit floating-point values within [0, 1]",
                do="save it with 8 or 16 bits",
            ) from error
        raise SignalError(f"{printable(path)}: not a picture, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise SignalError(f"{printable(path)}: too many pixels ({one_line(error)})", do="make it smaller") from error
    except DECODE_ERRORS as error:
        refused_by_system = isinstance(error, OSError) and error.errno is not None
        problem = "cannot be read" if refused_by_system else "damaged or truncated"
        raise SignalError(f"{printable(path)}: {problem} ({one_line(error)})") from error


def starts_like_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_dimensions(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse pictures whose (width, height) is too small for a signal or too large to be decoded."""
    width, height = size
    if min(width, height) < SMALLEST_SIDE:
        raise SignalError(f"{printable(path)}: {width}x{height} pixels, smaller than {SMALLEST_SIDE} pixels a side")
    if width * height > max_pixels:
        raise SignalError(
            f"{printable(path)}: too many pixels, {width}x{height}",
            allowed=f"at most {max_pixels:,} pixels (option max_pixels)",
            do="make it smaller",
        )


def decode(path: Path, picture: Image.Image, mode: str) -> Image.Image:
    """Decode a picture, upright, to ``L``, ``RGB``, or ``F`` in [0, 1] where it has more than 8 bits."""
    try:
        picture.load()
        upright = flatten(ImageOps.exif_transpose(picture), mode, largest_value(picture))
        return inverted(upright) if is_negative(picture) else upright
    except SignalError as error:
        raise SignalError(f"{printable(path)}: {error.wrong}", allowed=error.allowed, do=error.do) from error
    except DECODE_ERRORS as error:
        raise SignalError(f"{printable(path)}: damaged or truncated ({one_line(error)})") from error


def is_negative(picture: Image.Image) -> bool:
    """Whether the 0 of a TIFF is white and Pillow left it so, as it does where a pixel has more than 8 bits."""
    tags = getattr(picture, "tag_v2", {})
    return tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and (picture.mode.startswith("I") or picture.mode == "F")


def inverted(picture: Image.Image) -> Image.Image:
    """The negative."""
    return Image.fromarray(1 - np.asarray(picture))


def largest_value(picture: Image.Image) -> int:
    """The value that is white, or with ``is_negative`` black, in a picture of 9 to 16 bits."""
    bits = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
    return 2**bits - 1


def flatten(picture: Image.Image, mode: str, white: int = 65535) -> Image.Image:
    """Composite over white and convert.

    Args:
        picture: Decoded picture of any mode.
        mode: ``L`` or ``RGB``; a picture of more than 8 bits becomes ``F`` in [0, 1] whatever the mode.
        white: Largest value of a picture of 9 to 16 bits.
    """
    if picture.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(picture).astype(np.float32) / white)
    if picture.mode == "F":
        values = np.asarray(picture)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise SignalError("its floating-point values are not all within [0, 1]")
        return picture
    if picture.mode == "I":
        raise SignalError(
            "signed or 32-bit integer pixels have no stated range",
            allowed="8 or 16 bits without a sign, or floating-point values within [0, 1]",
            do="save it with 8 or 16 bits",
        )
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture if picture.mode == mode else picture.convert("RGB").convert(mode)


def resize_and_crop(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale to a size (height, width) so that the shorter side fits, and keep the centre.

    Equal to scaling the whole picture and cropping then, in exact fractions of a pixel, but only the part that is kept
    is computed, so an extreme shape costs no memory.
    """
    height, width = size
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - scale * width) / 2, (picture.height - scale * height) / 2
    box = (left, top, min(left + scale * width, picture.width), min(top + scale * height, picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def resize_values(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize and crop an array ``(H, W, C)`` in [0, 1] as a picture would be, without rounding to 8 bits."""
    if values.shape[:2] == tuple(size):
        return values
    channels = [Image.fromarray(np.ascontiguousarray(values[..., c], np.float32)) for c in range(values.shape[-1])]
    resized = [np.asarray(resize_and_crop(channel, size)) for channel in channels]
    return np.stack(resized, axis=-1).clip(0, 1)  # Lanczos overshoots at edges


def to_values(picture: Image.Image) -> np.ndarray:
    """Values ``(H, W, C)``, float32, of a picture of mode ``L``, ``RGB`` (divided by 255) or ``F`` (as it is)."""
    array = np.asarray(picture)
    values = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
    return values if values.ndim == 3 else values[..., None]


def with_mode(values: np.ndarray, mode: str | None) -> np.ndarray:
    """Turn grey into three equal channels or colour into luma (ITU-R 601), as the mode asks.

    Args:
        values: Array ``(H, W, C)`` with one or three channels.
        mode: ``L``, ``RGB``, or None to leave it.
    """
    if mode == "RGB" and values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    if mode == "L" and values.shape[-1] == 3:
        return (values @ np.array([0.299, 0.587, 0.114], np.float32))[..., None].clip(0, 1)
    return values


def values_to_signal(values: np.ndarray, *, id: str, label: str | None, split: str | None) -> Signal:
    """Make the signal of an array ``(H, W, C)`` in [0, 1]."""
    height, width, channels = values.shape
    copied = np.array(values, dtype=np.float32)  # never a view of what the source holds
    flat = torch.from_numpy(copied.reshape(-1, channels))  # (P, C)
    form = SignalForm(in_features=2, out_features=channels, grid=(height, width))
    return Signal(id=id, coords=grid_coords(form.grid), values=flat, form=form, label=label, split=split)


def values_to_image(values: Tensor | np.ndarray, grid: tuple[int, int]) -> Image.Image:
    """Picture of values ``(P, C)``, clipped to [0, 1] and rounded to 8 bits.

    Args:
        values: One channel for a grey picture, three for a colour one.
        grid: Height and width.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    assert array.shape[-1] in (1, 3), f"a picture has 1 or 3 channels, not {array.shape[-1]}"
    pixels = np.rint(array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8).reshape(*grid, array.shape[-1])
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
