"""Figures: lines that differ without colour, bands, bars, and the same bytes each time."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from wsrl.report.figures import Series, draw_bars, draw_lines, new_figure, save_figure

SLOPES = {f"slope {k}": Series([0, 1], [0, k]) for k in range(9)}


def lines_figure(series):
    figure, axis = new_figure()
    draw_lines(axis, series, "x in metres", "y in dB", title="lines")
    return figure, axis


def test_no_two_lines_have_the_same_dashes_and_marker():
    _, axis = lines_figure(SLOPES)
    looks = {(line.get_linestyle(), str(line._dash_pattern), line.get_marker()) for line in axis.lines}
    assert len(looks) == len(SLOPES) == len(axis.lines)


def test_a_legend_names_every_line_and_the_axes_have_their_labels():
    _, axis = lines_figure(SLOPES)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(SLOPES)
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("x in metres", "y in dB", "lines")


def test_a_band_is_drawn_where_it_is_given():
    _, axis = lines_figure({"with": Series([0, 1], [1, 2], [0, 1], [2, 3]), "without": Series([0, 1], [3, 4])})
    assert len(axis.collections) == 1
    assert axis.collections[0].get_datalim(axis.transData).y0 == 0


def test_logarithmic_axes():
    _, axis = new_figure()
    draw_lines(axis, {"a": Series([1, 10], [1, 100])}, "x", "y", log_x=True, log_y=True)
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_bars_stand_side_by_side_with_their_own_hatches():
    _, axis = new_figure()
    draw_bars(axis, ["a", "b"], {"one": [1, 2], "two": [3, np.nan], "three": [5, 6]}, "share", {"two": [0.1, 0.2]})
    bars = [bar for container in axis.containers if hasattr(container, "patches") for bar in container.patches]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(right <= left + 1e-9 for (_, right), (left, _) in pairwise(edges))
    assert len({bar.get_hatch() for bar in bars}) == 3
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]


def test_panels_come_as_an_array():
    _, axes = new_figure(2, 3, width=1, height=1)
    assert axes.shape == (2, 3)


@pytest.mark.parametrize("slope", [1, 2])
def test_the_same_figure_gives_the_same_file(tmp_path, slope):
    for name in ("a/first.png", "b/second.png"):
        save_figure(lines_figure({"a": Series([0, 1], [0, slope])})[0], tmp_path / name)
    first, second = (tmp_path / name for name in ("a/first.png", "b/second.png"))
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.format == "PNG"
        assert not image.text


def test_another_figure_gives_another_file(tmp_path):
    for slope in (1, 2):
        save_figure(lines_figure({"a": Series([0, slope], [0, slope])})[0], tmp_path / f"{slope}.png")
    assert (tmp_path / "1.png").read_bytes() != (tmp_path / "2.png").read_bytes()
