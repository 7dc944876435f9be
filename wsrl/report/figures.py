"""Figures that are readable in black and white: every line has its own dashes and marker, every bar its own hatch.

matplotlib draws on canvases of their own (Agg), never through its global state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

RESOLUTION_DPI = 110
# Okabe and Ito's colours, which the colour-blind tell apart; never the only mark of a line.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "v", "D", "x", "+", "*", "P")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "---", "+++")
GREYS = ("0.15", "0.85", "0.6", "0.95", "0.7", "0.9", "0.8", "1.0")


@dataclass(frozen=True)
class Series:
    """One line of a figure.

    Attributes:
        x: Where the points lie.
        y: Their values; nan leaves a gap.
        low: Lower ends of a band around the line; None for no band.
        high: Upper ends of the band.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 5.0, height: float = 3.5
) -> tuple[Figure, Axes | np.ndarray]:
    """An empty figure.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Width of one panel, in inches.
        height: Height of one panel, in inches.

    Returns:
        The figure, and its axes as ``pyplot.subplots`` gives them: alone, in a row or column, or ``(rows, columns)``.
    """
    figure = Figure(figsize=(columns * width, rows * height), dpi=RESOLUTION_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def draw_lines(
    axis: Axes,
    series: Mapping[str, Series],
    x_label: str,
    y_label: str,
    *,
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Draw lines with their bands and a legend.

    Args:
        axis: Where to draw.
        series: Lines by the name that the legend gives them; lines at the same position have the same style.
        x_label: What lies along the horizontal axis, with its unit.
        y_label: What lies along the vertical axis, with its unit.
        title: Title of the panel.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
    """
    styles = zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS))
    for (name, line), (colour, dashes, marker) in zip(series.items(), styles):
        axis.plot(line.x, line.y, color=colour, linestyle=dashes, marker=marker, markersize=5, lw=1.5, label=name)
        if line.low is not None and line.high is not None:
            axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    _label(axis, x_label, y_label, title)
    axis.grid(color="0.9", linewidth=0.6)
    if series:
        axis.legend(fontsize=8, framealpha=0.8, handlelength=3.5)


def draw_bars(
    axis: Axes,
    groups: Sequence[str],
    bars: Mapping[str, Sequence[float]],
    y_label: str,
    errors: Mapping[str, Sequence[float]] | None = None,
    *,
    title: str | None = None,
) -> None:
    """Draw groups of hatched bars side by side.

    Args:
        axis: Where to draw.
        groups: Names of the groups, from left to right.
        bars: For each kind of bar its height in every group; nan leaves a gap.
        y_label: What the heights mean, with their unit.
        errors: Half lengths of error bars, as ``bars``; kinds that are missing have none.
        title: Title of the panel.
    """
    # The bars of a group share four fifths of its width.
    share, positions = 0.8 / max(1, len(bars)), np.arange(len(groups))
    styles = islice(zip(cycle(GREYS), cycle(HATCHES)), len(bars))
    for i, ((name, heights), (grey, hatch)) in enumerate(zip(bars.items(), styles)):
        left = positions + (i - (len(bars) - 1) / 2) * share
        axis.bar(
            left,
            heights,
            share,
            yerr=(errors or {}).get(name),
            facecolor=grey,
            edgecolor="black",
            hatch=hatch,
            linewidth=0.8,
            error_kw={"elinewidth": 1.0, "capsize": 2.5, "ecolor": "#d55e00"},
            label=name,
        )
    # Names below the groups; a grid behind the bars to read heights by.
    axis.set_xticks(positions, groups)
    _label(axis, None, y_label, title)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    if len(bars) > 1:
        axis.legend(fontsize=8, framealpha=0.8)


def _label(axis: Axes, x_label: str | None, y_label: str, title: str | None) -> None:
    if x_label is not None:
        axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    if title is not None:
        axis.set_title(title, fontsize=10)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG of 256 colours, which is small; the same figure gives the same bytes.

    Args:
        figure: The figure.
        path: The file, whose folder is made if it is not there.
    """
    path, drawn = Path(path), BytesIO()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
