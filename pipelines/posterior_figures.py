"""Figures of matched posteriors: one path, and the barriers of all networks."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.experiment import RECORDS
from wsrl.report.figures import Series, draw_bars, draw_lines, new_figure, save_figure
from wsrl.symmetry.matching.posteriors import MarginalisedPath

NAMES = {"none": "not aligned", "means": "aligned by means", "means_and_stds": "by means and standard deviations"}
TWO_ERRORS = 2.0
SMALLEST = 1e-5  # nats; a logarithmic axis has no zero
LOSS = "marginalised loss (nats)"
BARRIER = "marginalised barrier (nats)"


def draw_path(results: Mapping[str, float], paths: Mapping[str, MarginalisedPath], file: Path | str) -> None:
    """Losses along the paths with two Monte-Carlo standard errors, and where there are classes accuracy and ECE.

    Args:
        results: Numbers of the experiment by dotted key.
        paths: Paths by alignment; of several pictures those of the last one.
        file: PNG to write.
    """
    kinds = [kind for kind in ("accuracy", "ece", "psnr") if f"none.path.000.{kind}" in results]
    figure, axes = new_figure(1, 1 + len(kinds), width=4.2)
    draw_lines(axes[0], {NAMES[name]: _band(path) for name, path in paths.items()}, "position t on the geodesic", LOSS)
    for axis, kind in zip(axes[1:], kinds):
        lines = {NAMES[name]: _scores(results, name, kind, path) for name, path in paths.items()}
        unit = {"accuracy": "accuracy (share)", "ece": "calibration error (share)", "psnr": "PSNR (dB)"}[kind]
        draw_lines(axis, lines, "position t on the geodesic", unit)
    save_figure(figure, file)


def _band(path: MarginalisedPath) -> Series:
    error = TWO_ERRORS * path.standard_errors()
    return Series(
        path.times.tolist(), path.losses.tolist(), (path.losses - error).tolist(), (path.losses + error).tolist()
    )


def _scores(results: Mapping[str, float], name: str, kind: str, path: MarginalisedPath) -> Series:
    times = path.times.tolist()
    return Series(times, [results[f"{name}.path.{round(100 * time):03d}.{kind}"] for time in times])


def draw_trends(name: str, results: Mapping[str, float], file: Path | str) -> None:
    """Barriers of all networks that have a record: along width, along depth, and side by side.

    Args:
        name: The network of the running experiment.
        results: Its numbers, in place of its record.
        file: PNG to write.
    """
    records = {path.stem: json.loads(path.read_text()) for path in sorted((RECORDS / "posteriors").glob("*.json"))}
    records[name] = dict(results)
    figure, axes = new_figure(1, 3, width=4.2)
    perceptrons = [record for record in records.values() if record["network.is_mlp"]]
    panels = {
        "width": ([r for r in perceptrons if r["network.depth"] == 2], "width (units), 2 hidden layers"),
        "depth": ([r for r in perceptrons if r["network.width"] == 512], "hidden layers (number), width 512"),
    }
    for axis, (along, (compared, label)) in zip(axes, panels.items()):
        if compared:
            scales = {"log_x": along == "width", "log_y": True}
            draw_lines(axis, _trend(compared, along), label, BARRIER, title="perceptrons", **scales)
    others = {key: record for key, record in records.items() if not record["network.is_mlp"]}
    bars = {label: [record[f"barrier_{kind}"] for record in others.values()] for kind, label in NAMES.items()}
    errors = {
        label: [TWO_ERRORS * record[f"barrier_{kind}_stderr"] for record in others.values()]
        for kind, label in NAMES.items()
    }
    draw_bars(axes[2], list(others), bars, BARRIER, errors, title="other networks")
    axes[2].set_yscale("log")  # those of a picture's pixels are far larger than those of a class
    save_figure(figure, file)


def _trend(records: list[dict[str, float]], along: str) -> dict[str, Series]:
    """One line for each alignment, with two Monte-Carlo standard errors; zero is drawn at the smallest number."""
    ordered = sorted(records, key=lambda record: record[f"network.{along}"])
    lines = {}
    for kind, label in NAMES.items():
        values = [max(record[f"barrier_{kind}"], SMALLEST) for record in ordered]
        errors = [TWO_ERRORS * record[f"barrier_{kind}_stderr"] for record in ordered]
        low = [max(value - error, value / 10) for value, error in zip(values, errors)]
        positions = [record[f"network.{along}"] for record in ordered]
        lines[label] = Series(positions, values, low, [value + error for value, error in zip(values, errors)])
    return lines
