"""Sets of fields of shapes, judged against real shapes and training fields.

MMD, COV and 1-NNA on points of their surfaces; nearness to training in weights and by surface.

Letters: N fields, R references, M training fields, H held-out fields, P points.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.evaluation.generation import Judged, KnownFields, check_numbers, judged
from wsrl.evaluation.memorisation import Nearest, VectorMemory
from wsrl.evaluation.shape_sets import (
    SET_POINTS,
    nearest_shapes,
    pairwise_chamfer,
    shape_set_scores,
    surface_points,
    valid_shapes,
)
from wsrl.progress import UNSEEN, Progress, ShowProgress, silent


def render_points(
    weights: dict[str, Tensor],
    decoder: FieldDecoder,
    *,
    resolution: int,
    num_points: int = SET_POINTS,
    seed: int = 0,
    shown: Progress = UNSEEN,
) -> np.ndarray:
    """Normalised surface points ``(N, P, 3)`` of fields of shapes; NaN for a field without a surface."""
    num = len(next(iter(weights.values())))
    fields = (decoder.field({name: tensor[i] for name, tensor in weights.items()}) for i in range(num))
    return surface_points(fields, resolution, num_points, seed, shown)[0]


@dataclass(frozen=True, kw_only=True)
class ShapeReferences:
    """What sets of fields of shapes are judged against; make one with :meth:`build` and use it for all sets.

    Attributes:
        fields: Training and held-out fields.
        points: Normalised surface points ``(R, P, 3)`` of the real shapes.
        weights: Training fields by weights, coordinates over their standard deviation.
        train_points: Normalised surface points ``(M, P, 3)`` of the training fields that have a surface.
        train_rows: Indices of those among the training fields, ``(M,)``.
        heldout: Nearest training field of each held-out field by surface.
        resolution: Cells of a side of the grid that meshes are found on.
        seed: Seed of the points on surfaces.
    """

    fields: KnownFields
    points: np.ndarray
    weights: VectorMemory
    train_points: np.ndarray
    train_rows: np.ndarray
    heldout: Nearest
    resolution: int
    seed: int = 0

    @classmethod
    def build(
        cls,
        fields: KnownFields,
        points: np.ndarray,
        *,
        resolution: int,
        seed: int = 0,
        progress: ShowProgress = silent,
    ) -> "ShapeReferences":
        """Mesh and measure what all sets are compared with.

        Args:
            fields: Training and held-out fields.
            points: Normalised surface points ``(R, P, 3)`` of real shapes, finite.
            resolution: Cells of a side of the grid that meshes are found on.
            seed: Seed of the points on surfaces.
            progress: Shows how many training and held-out fields were meshed.

        Raises:
            UserError: There are too few shapes, or no training field has a surface.
        """
        check_numbers(len(points), len(points), "real shapes")
        how = {"resolution": resolution, "num_points": points.shape[1]}
        # Points on the surfaces of the fields themselves: memorisation compares fields with fields.
        with progress("training and held-out fields meshed", sum(fields.sizes)) as shown:
            rendered = [
                render_points(part, fields.decoder, seed=seed + i, shown=shown, **how)
                for i, part in enumerate((fields.train, fields.heldout))
            ]
        # A training field without a surface can be nobody's neighbour.
        rows = np.flatnonzero(valid_shapes(rendered[0]))
        check_numbers(len(rows), len(rows), "training fields with a surface")
        return cls(
            fields=fields,
            points=points,
            weights=fields.weight_memory(),
            train_points=rendered[0][rows],
            train_rows=rows,
            heldout=_nearest_shapes(rendered[1], rendered[0][rows], rows),
            resolution=resolution,
            seed=seed,
        )

    @cached_property
    def within(self) -> np.ndarray:
        """Chamfer distances ``(R, R)`` of the real shapes."""
        return pairwise_chamfer(self.points, self.points)

    def judge(self, weights: dict[str, Tensor]) -> Judged:
        """Score fields ``(N, *shape)``; sets of shapes are compared as far as both go: 1-NNA asks for equal ones."""
        how = {"resolution": self.resolution, "num_points": self.points.shape[1]}
        points = render_points(weights, self.fields.decoder, seed=self.seed + 2, **how)
        flat = self.fields.layout.flatten(weights).cpu()
        finite, surfaces = flat.isfinite().all(dim=1), torch.from_numpy(valid_shapes(points))
        metrics = {"num": len(flat), "num_invalid": int((~(finite & surfaces)).sum())}
        num = min(len(points), len(self.points))
        metrics |= shape_set_scores(points[:num], self.points[:num], self.within[:num, :num])
        return judged(
            metrics,
            (self.weights.nearest(flat), self.weights.heldout),
            (_nearest_shapes(points, self.train_points, self.train_rows), self.heldout),
            points,
        )


def _nearest_shapes(points: np.ndarray, references: np.ndarray, rows: np.ndarray) -> Nearest:
    distances, indices = nearest_shapes(points, references)
    return Nearest(torch.from_numpy(distances), torch.from_numpy(np.where(indices >= 0, rows[indices], -1)))
