"""Contact sheets: every picture is in its place, whatever its mode and shape."""

import numpy as np
import pytest
from PIL import Image

from wsrl.report.contact_sheet import GAP, MARGIN, beside, error_picture, grid_sheet


def test_pictures_stand_in_rows():
    colours = ["red", "green", "blue", "black", "yellow"]
    sheet = grid_sheet([Image.new("RGB", (4, 4), colour) for colour in colours], 2, 8)
    assert sheet.mode == "RGB" and sheet.size == (2 * 10 + GAP, 3 * 10 + GAP)
    for i, colour in enumerate(colours):
        left, top = GAP + (i % 2) * 10, GAP + (i // 2) * 10
        cell = np.asarray(sheet.crop((left, top, left + 8, top + 8)))
        assert (cell == np.asarray(Image.new("RGB", (8, 8), colour))).all()
    assert sheet.getpixel((GAP + 14, GAP + 24)) == (255, 255, 255), "the last row is not full"
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_pictures_of_any_mode(mode):
    assert grid_sheet([Image.new(mode, (3, 3))], 4, 9).size == (4 * 11 + GAP, 11 + GAP)


@pytest.mark.parametrize(("size", "shown"), [((10, 5), (20, 10)), ((5, 10), (10, 20)), ((100, 1), (20, 1))])
def test_aspect_is_kept(size, shown):
    dark = np.asarray(grid_sheet([Image.new("L", size, 0)], 1, 20).convert("L")) == 0
    assert (dark.any(0).sum(), dark.any(1).sum()) == shown


def test_small_pictures_are_enlarged_without_smoothing():
    board = Image.fromarray(np.array([[0, 200], [200, 0]], dtype=np.uint8))
    cell = np.asarray(grid_sheet([board], 1, 8).convert("L"))[GAP : GAP + 8, GAP : GAP + 8]
    assert (cell == np.kron([[0, 200], [200, 0]], np.ones((4, 4)))).all()


def test_no_pictures():
    assert grid_sheet([], 3, 8).size == (3 * 10 + GAP, GAP)


def test_sheets_side_by_side():
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 50), "blue")
    page = beside([("data", red), ("samples", blue)])
    assert page.size == (40 + 20 + 3 * MARGIN, 50 + 2 * MARGIN + 12)
    pixels = np.asarray(page)
    assert (pixels == (255, 0, 0)).all(-1).sum() == 40 * 30
    assert (pixels == (0, 0, 255)).all(-1).sum() == 20 * 50
    assert (pixels < 128).all(-1).any(), "titles are drawn"


def test_error_is_white_where_there_is_none():
    target = np.full((2, 3, 3), 0.5)
    found = target.copy()
    found[0, 0] += 0.25
    found[1, 2] -= 0.5
    picture = error_picture(found, target, scale=2.0)
    assert picture.mode == "L" and picture.size == (3, 2)
    assert np.asarray(picture).tolist() == [[128, 255, 255], [255, 255, 0]]
