"""Pictures of every kind become the values they show, and bad files one line that says why."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from wsrl.errors import SignalError
from wsrl.signals.pictures.image import (
    read_picture,
    resize_and_crop,
    resize_values,
    values_to_image,
    values_to_signal,
    with_mode,
)

RAMP = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def saved(tmp_path, picture, name="picture.png", **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "tiff", "webp"])
def test_lossless_colour_is_exact(tmp_path, extension):
    path = saved(
        tmp_path, Image.fromarray(COLOURS), f"p.{extension}", **({"lossless": True} if extension == "webp" else {})
    )
    assert np.array_equal(read_picture(path, (6, 8), "RGB"), COLOURS.astype(np.float32) / 255)


@pytest.mark.parametrize("extension", ["jpg", "jpeg"])
def test_jpeg_is_close(tmp_path, extension):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    values = read_picture(saved(tmp_path, Image.fromarray(flat), f"p.{extension}", quality=95), (16, 16), "RGB")
    assert np.abs(values * 255 - flat).max() <= 3  # what JPEG at quality 95 loses on a flat picture


def test_grey_is_exact_and_fills_three_channels(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP))
    grey = read_picture(path, (6, 8), "L")
    assert grey.shape == (6, 8, 1) and grey.dtype == np.float32
    assert np.array_equal(grey[..., 0], RAMP.astype(np.float32) / 255)
    assert np.array_equal(read_picture(path, (6, 8), "RGB"), np.repeat(grey, 3, axis=-1))


def test_colour_to_grey_is_601_luma(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS))
    expected = COLOURS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_picture(path, (6, 8), "L")[..., 0] * 255 - expected).max() <= 0.51  # Pillow rounds to 8 bits
    assert np.allclose(with_mode(COLOURS.astype(np.float32) / 255, "L")[..., 0] * 255, expected, atol=1e-3)


def test_bilevel(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP > 100))
    assert np.array_equal(read_picture(path, (6, 8), "L")[..., 0], (RAMP > 100).astype(np.float32))


def test_palette_shows_its_colours(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").copy()
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    values = read_picture(saved(tmp_path, indexed), (2, 2), "RGB")
    assert values.tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]


def test_palette_transparency_is_white(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").copy()
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    values = read_picture(saved(tmp_path, indexed, transparency=0), (2, 2), "RGB")
    assert values[0, 0].tolist() == [1, 1, 1] and values[1, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_over_white(tmp_path, mode):
    black = Image.new(mode, (3, 2), (0,) * (len(mode) - 1) + (0,))
    black.putpixel((0, 0), (0,) * (len(mode) - 1) + (255,))
    black.putpixel((1, 0), (0,) * (len(mode) - 1) + (51,))
    values = read_picture(saved(tmp_path, black), (2, 3), "L")[..., 0]
    assert values[0].tolist() == pytest.approx([0.0, 0.8, 1.0])


def test_transparent_grey_level_is_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), transparency=10)
    assert read_picture(path, (6, 8), "L")[0, :4, 0].tolist() == pytest.approx([0, 5 / 255, 1, 15 / 255])


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_keep_their_precision(tmp_path, extension):
    deep = np.array([[0, 1, 256], [32768, 65534, 65535]], np.uint16)
    values = read_picture(saved(tmp_path, Image.fromarray(deep), f"p.{extension}"), (2, 3), "L")
    assert np.allclose(values[..., 0], deep / 65535, rtol=0, atol=1e-7)
    assert read_picture(tmp_path / f"p.{extension}", (4, 4), "RGB").shape == (4, 4, 3)


def test_float_tiff_within_range(tmp_path):
    array = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(read_picture(saved(tmp_path, Image.fromarray(array), "p.tif"), (3, 4), "L")[..., 0], array)
    wrong = saved(tmp_path, Image.fromarray(array * np.float32(np.nan)), "nan.tif")
    with pytest.raises(SignalError, match=r"nan\.tif: its floating-point values are not all within \[0, 1\]"):
        read_picture(wrong, (3, 4), "L")


def tiff(pixels, bits, photometric, order="<", sample_format=1):
    """An uncompressed grey TIFF of 4x4 pixels, whose bytes are given."""
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 4, 279: len(pixels)}
    tags[339] = sample_format
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    tags[273] = len(head) + 12 * len(tags) + 4
    rows = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    return head + b"".join(rows) + bytes(4) + pixels


def twelve_bits(values):
    """Pairs of values in three bytes."""
    pairs = values.reshape(-1, 2).tolist()
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


@pytest.mark.parametrize(
    ("order", "bits", "kind"),
    [("<", 8, "u1"), (">", 8, "u1"), ("<", 16, "u2"), (">", 16, "u2"), ("<", 12, ""), ("<", 32, "f4"), (">", 32, "f4")],
)
def test_tiff_whose_zero_is_white(tmp_path, order, bits, kind):
    """python-pillow/Pillow#6642, darktable-org/darktable#18815: inverted, as it is shown, also above 8 bits."""
    top = 1.0 if kind == "f4" else 2**bits - 1
    ramp = np.arange(16).reshape(4, 4) / 15
    values = (ramp * top).astype(order + kind if kind else np.int64)
    pixels = values.tobytes() if kind else twelve_bits(values)
    for photometric, expected in ((0, 1 - ramp), (1, ramp)):
        path = tmp_path / "p.tif"
        path.write_bytes(tiff(pixels, bits, photometric, order, 3 if kind == "f4" else 1))
        assert np.allclose(read_picture(path, (4, 4), "L")[..., 0], expected, atol=1e-6)


def test_a_tiff_in_another_form_is_not_called_something_else(tmp_path):
    path = tmp_path / "p.tif"
    path.write_bytes(tiff(np.zeros(16, "<f8").tobytes(), 64, 0, sample_format=3))
    with pytest.raises(SignalError, match=r"a TIFF in a form that Pillow does not read.*Allowed: 8 or 16 bits"):
        read_picture(path, (4, 4), "L")


def test_cmyk_becomes_colour(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "p.tif")
    assert np.array_equal(read_picture(path, (4, 4), "RGB"), np.ones((4, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (2, lambda stored: stored[:, ::-1]),
        (3, lambda stored: stored[::-1, ::-1]),
        (4, lambda stored: stored[::-1]),
        (5, lambda stored: stored.T),
        (6, lambda stored: np.rot90(stored, -1)),
        (7, lambda stored: np.rot90(stored, 2).T),
        (8, lambda stored: np.rot90(stored, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(RAMP), exif=exif.tobytes())
    expected = upright(RAMP)
    assert np.array_equal(read_picture(path, expected.shape, "L")[..., 0] * 255, expected)


def test_same_size_is_not_resampled():
    picture = Image.fromarray(RAMP)
    assert resize_and_crop(picture, (6, 8)) is picture


def test_shorter_side_fits_and_the_centre_is_kept():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    assert np.asarray(resize_and_crop(Image.fromarray(wide), (10, 10))).min() == 255
    tall = Image.fromarray(RAMP.repeat(4, axis=0))  # 24 rows of 8
    whole = np.asarray(tall.resize((4, 12), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(resize_and_crop(tall, (4, 4))), whole[4:8])


def test_downscaling_is_antialiased():
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = np.asarray(resize_and_crop(Image.fromarray(checkers), (8, 8))).astype(int)
    assert np.abs(small - 127.5).max() <= 3
    assert not np.abs(checkers[::8, ::8].astype(int) - 127.5).max() <= 3  # control: plain subsampling is not


def test_extreme_shape_costs_no_memory():
    line = Image.fromarray(np.full((2, 1_000_000), 7, np.uint8))
    assert np.asarray(resize_and_crop(line, (32, 32))).tolist() == [[7] * 32] * 32


def test_resized_values_agree_with_resized_pictures():
    picture = Image.fromarray(COLOURS)
    floats = resize_values(COLOURS.astype(np.float32) / 255, (3, 3))
    assert (
        np.abs(floats * 255 - np.asarray(resize_and_crop(picture, (3, 3)))).max() <= 1.5
    )  # 8-bit rounding, two passes


def test_resized_values_stay_in_range():
    step = np.zeros((8, 8, 1), np.float32)
    step[:, 4:] = 1
    large = resize_values(step, (32, 32))
    assert large.min() == 0 and large.max() == 1


def test_signal_and_picture_are_inverse():
    values = COLOURS.astype(np.float32) / 255
    signal = values_to_signal(values, id="a", label="b", split="train")
    assert signal.form.grid == (6, 8) and signal.values.shape == (48, 3) and signal.coords.shape == (48, 2)
    assert np.array_equal(np.asarray(values_to_image(signal.values, signal.form.grid)), COLOURS)
    grey = values_to_signal(values[..., :1], id="a", label=None, split=None)
    assert np.array_equal(np.asarray(values_to_image(grey.values, (6, 8))), RAMP)


def test_signal_is_a_copy():
    values = np.zeros((2, 2, 1), np.float32)
    signal = values_to_signal(values, id="a", label=None, split=None)
    signal.values.fill_(1)
    assert values.max() == 0


def test_picture_values_are_clipped():
    picture = values_to_image(torch.tensor([[-1.0], [0.5], [1.0], [2.0]]), (2, 2))
    assert np.asarray(picture).tolist() == [[0, 128], [255, 255]]


def png_header(width, height):
    """A PNG that announces a size and holds no pixels to speak of."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"this is no picture\n", "not a picture, or its header is damaged"),
        ("empty.png", b"", "not a picture, or its header is damaged"),
        ("cut.jpg", jpeg_bytes()[:2000], "damaged or truncated"),
        ("header.jpg", jpeg_bytes()[:30], "damaged or truncated"),
        ("bomb.png", png_header(20_000, 20_000), "too many pixels"),
        ("large.png", png_header(9_000, 9_000), "too many pixels, 9000x9000. Allowed: at most 67,108,864 pixels"),
        ("warned.png", png_header(10_000, 10_000), "too many pixels, 10000x10000"),
        ("dot.png", png_header(1, 1), "1x1 pixels, smaller than 2 pixels a side"),
        ("line.png", png_header(50, 1), "50x1 pixels, smaller than 2 pixels a side"),
        ("hollow.png", png_header(50, 50), "damaged or truncated"),
    ],
)
def test_bad_files_give_one_line_with_their_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SignalError, match=message) as caught:
        read_picture(path, (8, 8), "L")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_is_told(tmp_path):
    whole = jpeg_bytes()
    for length in range(0, len(whole) - 2, 97):
        path = tmp_path / "cut.jpg"
        path.write_bytes(whole[:length])
        with pytest.raises(SignalError, match="damaged"):
            read_picture(path, (8, 8), "RGB")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tif"])
def test_flipped_bytes_never_escape_as_another_error(tmp_path, extension):
    whole = bytearray(saved(tmp_path, Image.fromarray(COLOURS), f"p.{extension}").read_bytes())
    path = tmp_path / f"q.{extension}"
    for place in range(0, len(whole), 3):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            values = read_picture(path, (4, 4), "RGB", max_pixels=2**16)
        except SignalError as error:
            assert "\n" not in str(error)
        else:
            assert values.shape == (4, 4, 3) and 0 <= values.min() <= values.max() <= 1


def test_pixel_limit_is_an_option(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP))
    with pytest.raises(SignalError, match=r"too many pixels, 8x6\. Allowed: at most 47 pixels \(option max_pixels\)"):
        read_picture(path, (6, 8), "L", max_pixels=47)
    assert read_picture(path, (6, 8), "L", max_pixels=48).shape == (6, 8, 1)


def test_integer_pixels_without_a_range(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.int32)), "p.tif")
    with pytest.raises(SignalError, match="32-bit integer pixels have no stated range"):
        read_picture(path, (6, 8), "L")


def test_what_is_no_readable_file(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (("gone", "No such file"), ("loop", "symbolic links"), ("pipe", "not a regular file")):
        with pytest.raises(SignalError, match=rf"{name}\.png: .*{message}"):
            read_picture(tmp_path / f"{name}.png", (8, 8), "L")


def test_forbidden_file(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SignalError, match=r"picture\.png: cannot be read \(Permission denied\)"):
        read_picture(path, (8, 8), "L")
