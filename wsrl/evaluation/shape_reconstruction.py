"""How well the fields of a store reproduce their shapes: each is meshed and compared with the original.

Letters: K scored shapes, H held-out points.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from wsrl.evaluation.features import signals_of_rows
from wsrl.evaluation.shapes import EMPTY_SCORES, THRESHOLD, score_shape
from wsrl.fitting.engine import field_seed
from wsrl.progress import UNSEEN, Progress
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.field import Field

SUMMARISED = ("iou", *EMPTY_SCORES, "f_score_ceiling")


def score_fields(
    store: WeightStore,
    source: Source,
    rows: Sequence[int],
    *,
    resolution: int,
    num_points: int,
    seed: int,
    shown: Progress = UNSEEN,
    through: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> dict[str, np.ndarray]:
    """Mesh some fields and score them against the shapes that they were fitted to.

    Args:
        store: A store of shapes.
        source: The source that it was built from.
        rows: Rows to score.
        resolution: Cells of the grid along a side of the cube [-1, 1]^3.
        num_points: Points on either surface, at most as many as the signals have.
        seed: Seed of the points; those of a shape depend on it and on the shape's id alone.
        shown: The loop's progress; each shape counts one.
        through: An autoencoder that the weights ``(1, *shape)`` go through first; None scores the stored fields.

    Returns:
        Each score of :func:`wsrl.evaluation.shapes.score_shape` as an array ``(K,)`` in the order of ``rows``. The IoU
        is that of the field itself at the held-out points of the signal, not that of its mesh.
    """
    scores: list[dict[str, float]] = []
    for row, signal in zip(rows, signals_of_rows(store, source, rows)):
        field = store.field(int(row))
        if through is not None:
            again = through({name: tensor[None] for name, tensor in field.weights.items()})
            field = Field(field.representation, {name: tensor[0] for name, tensor in again.items()}, field.form)
        inside = field(signal.heldout_coords)[:, 0].numpy() < 0  # (H,)
        mesh = field.mesh(resolution)
        scores.append(score_shape(mesh, inside, signal, num_points, field_seed(seed, signal.id)))
        shown.advance(1)
    return {name: np.array([one[name] for one in scores]) for name in scores[0]} if scores else {}


def summarise_scores(scores: dict[str, np.ndarray], splits: np.ndarray) -> dict[str, float]:
    """Mean and median of each score over all scored shapes and over each split, under dotted keys.

    Args:
        scores: What :func:`score_fields` summary.
        splits: Split of each scored shape, empty where it has none.

    Returns:
        Keys such as ``iou_median`` and ``test.chamfer_l1_mean``, ``num_shapes`` and ``num_empty``, ``threshold`` of the
        F-score, and ``num_without_volume``: shapes whose IoU is left out because no held-out point is inside of them.
    """
    summary: dict[str, float] = {"threshold": THRESHOLD}
    for prefix, mask in _parts(splits):
        part = {name: values[mask] for name, values in scores.items()}
        summary |= {
            f"{prefix}num_shapes": int(mask.sum()),
            f"{prefix}num_empty": int(part["empty"].sum()),
            f"{prefix}num_without_volume": int(np.isnan(part["iou"]).sum()),
        }
        # Shapes without a score are left out of its mean.
        for name in SUMMARISED:
            if (known := part[name][~np.isnan(part[name])]).size:
                summary[f"{prefix}{name}_median"] = float(np.median(known))
                summary[f"{prefix}{name}_mean"] = float(known.mean())
    return summary


def _parts(splits: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Prefix and mask of all shapes and of each split."""
    names = sorted(set(splits.tolist()) - {""})
    return [("", np.ones(len(splits), dtype=bool)), *((f"{name}.", splits == name) for name in names)]
