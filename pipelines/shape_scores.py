"""Scores of many stored shapes, in processes side by side.

Letters: K scored shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.side_by_side import one_thread_each
from wsrl.evaluation.shape_reconstruction import score_fields
from wsrl.signals import open_source
from wsrl.store import WeightStore


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """What each process needs to know.

    Attributes:
        store: Folder of the store.
        data: Source that the store was built from.
        source: Options of the source.
        resolution: Cells of the meshes' grid along a side.
        num_points: Points on either surface.
        seed: Seed of the points.
    """

    store: str
    data: str
    source: dict[str, Any] = field(default_factory=dict)
    resolution: int
    num_points: int
    seed: int


def score_in_processes(task: ScoreTask, rows: Sequence[int], processes: int) -> dict[str, np.ndarray]:
    """Scores of some rows of a store, which do not depend on the number of processes.

    Args:
        task: What to score.
        rows: Rows of the store.
        processes: Processes at one time, each with one thread.

    Returns:
        Each score as an array ``(K,)`` in the order of ``rows``.
    """
    rows = np.asarray(rows)
    parts = [np.arange(first, len(rows), processes) for first in range(min(processes, len(rows)))]
    with one_thread_each(len(parts)) as pool:
        scored = list(pool.map(_score, [task] * len(parts), [rows[part] for part in parts]))
    order = np.argsort(np.concatenate(parts))
    return {name: np.concatenate([part[name] for part in scored])[order] for name in scored[0]}


def _score(task: ScoreTask, rows: np.ndarray) -> dict[str, np.ndarray]:
    how = {"resolution": task.resolution, "num_points": task.num_points, "seed": task.seed}
    with WeightStore.open(task.store) as store:
        return score_fields(store, open_source(task.data, **task.source), rows, **how)
