"""Figures of the probes: maps with pictures, label efficiency, and the importance of tensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.probe_scores import Scores
from wsrl.evaluation.features import weight_features
from wsrl.evaluation.maps import TSNE_AXES, tsne_map
from wsrl.evaluation.store_probe import draw_fields
from wsrl.report.figures import Series, draw_bars, draw_lines, new_figure, save_figure
from wsrl.store import WeightStore

SIDE = 0.042
MEASURES = {"alone": "alone", "left_out": "fall when left out", "shuffled": "fall when shuffled"}


def draw_figures(
    config, stores: Mapping[str, Path], rows: Mapping[str, Scores], measured: Mapping[str, Mapping[str, float]]
) -> None:
    """Draw what the configuration asks for.

    Args:
        config: A ``ProbesConfig``.
        stores: Folders of the stores by row.
        rows: Scores by row.
        measured: Importance by kind.
    """
    if config.map_picture is not None and config.mapped:
        draw_maps({row: stores[row] for row in config.mapped}, config.num_mapped, config.seed, config.map_picture)
    if config.curve_picture is not None:
        draw_curves({name: scores for name, scores in rows.items() if scores.curve}, config.curve_picture)
    if config.importance_picture is not None and measured:
        draw_importance(measured, config.importance_picture)


def draw_maps(stores: Mapping[str, Path], num: int, seed: int, path: str) -> None:
    """Maps of some fields side by side: the same signals in each, as far as the stores have them.

    Args:
        stores: Stores by title.
        num: Fields of each map.
        seed: Seed of the choice and of the maps.
        path: PNG file to write, with few colours.
    """
    figure, axes = new_figure(columns=len(stores), width=5.2, height=5.4)
    common = set.intersection(*(ids_of(store) for store in stores.values()))
    mapped = set(np.random.default_rng(seed).permutation(sorted(common))[:num])
    for axis, (title, folder) in zip(np.atleast_1d(axes), stores.items()):
        with WeightStore.open(folder) as store:
            rows = np.array([row for row, name in enumerate(store.ids) if name in mapped])
            points = tsne_map(weight_features(store, rows).numpy(), seed)
            draw_fields(axis, store, rows, points, SIDE, title=title, axis_names=TSNE_AXES, finish=inverted)
    save_figure(figure, path)
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def ids_of(path: Path) -> set[str]:
    """Ids of the fields of a store."""
    with WeightStore.open(path) as store:
        return set(store.ids)


def inverted(picture: Image.Image) -> Image.Image:
    """A grey picture dark on light, as print is; a coloured one stays as it is."""
    return Image.eval(picture, lambda value: 255 - value) if picture.mode == "L" else picture


def draw_curves(rows: Mapping[str, Scores], path: str) -> None:
    """Accuracy by the number of labelled fields of each class, with a band of one standard deviation over seeds."""
    figure, axis = new_figure(width=6.4, height=4.2)
    series = {}
    for name, scores in rows.items():
        counts = sorted(scores.curve)
        mean, std = (np.array([getattr(scores.curve[count], of) for count in counts]) for of in ("mean", "std"))
        series[name] = Series(counts, 100 * mean, 100 * (mean - std), 100 * (mean + std))
    labels = "labelled fields per class", "test accuracy of logistic regression (%)"
    draw_lines(axis, series, *labels, title="Label efficiency: mean and standard deviation over seeds", log_x=True)
    save_figure(figure, path)


def draw_importance(measured: Mapping[str, Mapping[str, float]], path: str) -> None:
    """What each part of a field is worth, one panel for each kind."""
    figure, axes = new_figure(rows=len(measured), width=8.0, height=3.2)
    for axis, (kind, values) in zip(np.atleast_1d(axes), measured.items()):
        parts = list(dict.fromkeys(key.rpartition(".")[0] for key in values if key.endswith(".alone")))
        bars = {title: [100 * values[f"{part}.{key}"] for part in parts] for key, title in MEASURES.items()}
        errors = {title: [100 * values[f"{part}.{key}_std"] for part in parts] for key, title in MEASURES.items()}
        names = [part.replace("layers.", "layer ").replace("*.", "all ").replace(".", "\n") for part in parts]
        draw_bars(axis, names, bars, "accuracy (%)", errors, title=f"{kind}: what a logistic regression reads")
        axis.tick_params(axis="x", labelsize=7)
    save_figure(figure, path)
