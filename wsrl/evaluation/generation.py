"""Scores of any set of fields, be they samples, held-out fields or baselines, by the same lines.

Pictures: Fréchet distance, two kernel distances, precision and recall on features. Shapes: MMD, COV and 1-NNA on points
of their surfaces. Both: how near they are to training fields, in weights and as signals. A field whose weights or whose
signal are not finite counts with the worst there is: a grey picture, the largest distance of shapes, a copy of a
training field.

Letters: N fields, R references, W weights of a field in one vector, C channels, H height, W width of pictures.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.memorisation import Nearest, VectorMemory, memorisation_scores
from wsrl.evaluation.picture_features import PictureFeatures
from wsrl.evaluation.picture_sets import frechet_distance, mmd_gaussian, mmd_polynomial, precision_recall
from wsrl.evaluation.shape_sets import (
    NUM_POINTS,
    nearest_shapes,
    pairwise_chamfer,
    shape_set_scores,
    surface_points,
    valid_shapes,
)
from wsrl.fields.layout import Layout
from wsrl.progress import UNSEEN, Progress, ShowProgress, silent
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore

GREY = 0.5
READ_AT_ONCE = 256
LEAST = 4
"""Fewer fields have no scores on features: precision and recall look at the third neighbour."""


def render_pictures(weights: dict[str, Tensor], decoder: FieldDecoder) -> Tensor:
    """Pictures ``(N, C, H, W)`` of fields ``(N, *shape)`` on the grid of the data, cut to [0, 1]; NaN stays NaN.

    Raises:
        UserError: The fields are no pictures, or nothing says on which grid.
    """
    form = decoder.form
    if not form.is_picture or form.grid is None:
        where = "no grid" if form.grid is None else "a grid"
        raise UserError(
            f"fields from {form.in_features} coordinates to {form.out_features} values on {where}",
            allowed="pictures on a grid, or shapes",
            do="for an import of pictures give signal.grid in its network.yaml; others are not scored",
        )
    values = decoder.decode(weights, grid_coords(form.grid)).cpu()  # (N, P, C)
    low, high = form.value_range
    return ((values - low) / (high - low)).clamp(0, 1).mT.unflatten(2, form.grid)  # (N, C, H, W)


def render_points(
    weights: dict[str, Tensor],
    decoder: FieldDecoder,
    *,
    resolution: int,
    num_points: int = NUM_POINTS,
    seed: int = 0,
    shown: Progress = UNSEEN,
) -> np.ndarray:
    """Normalised surface points ``(N, P, 3)`` of fields of shapes; NaN for a field without a surface."""
    num = len(next(iter(weights.values())))
    fields = (decoder.field({name: tensor[i] for name, tensor in weights.items()}) for i in range(num))
    return surface_points(fields, resolution, num_points, seed, shown)[0]


@dataclass(frozen=True)
class Judged:
    """What is known of a set of fields.

    Attributes:
        metrics: The scores.
        in_weights: Nearest training field of each by weights.
        in_signals: Nearest training field of each by its picture or surface.
        signals: Pictures ``(N, C, H, W)`` or surface points ``(N, P, 3)``.
    """

    metrics: dict[str, float]
    in_weights: Nearest
    in_signals: Nearest
    signals: Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True)
class PictureReferences:
    """What sets of fields of pictures are judged against; make one with :meth:`build` and use it for all sets.

    Attributes:
        layout: Layout of the fields.
        features: What turns pictures into features; None leaves the scores that need them out.
        reference_features: Features ``(R, F)`` of the real pictures.
        weights: Training fields by weights, coordinates over their standard deviation.
        signals: Training fields by pictures.
    """

    layout: Layout
    features: PictureFeatures | None
    reference_features: Tensor | None
    weights: VectorMemory
    signals: VectorMemory

    @classmethod
    def build(
        cls,
        *,
        layout: Layout,
        decoder: FieldDecoder,
        train: dict[str, Tensor],
        heldout: dict[str, Tensor],
        features: PictureFeatures | None,
        pictures: Tensor | None,
    ) -> "PictureReferences":
        """Render and measure what all sets are compared with.

        Args:
            layout: Layout of the fields.
            decoder: What renders them.
            train: Training fields ``(M, *shape)``.
            heldout: Fields that the model has not seen ``(H, *shape)``.
            features: What turns pictures into features.
            pictures: Real pictures ``(R, C, H, W)``; needed where there are features.

        Raises:
            UserError: There are too few fields or pictures.
        """
        check_numbers(len(next(iter(train.values()))), len(next(iter(heldout.values()))), "fields")
        if features is not None:
            check_numbers(len(pictures), len(pictures), "real pictures")
        rendered = [render_pictures(part, decoder).flatten(1) for part in (train, heldout)]
        return cls(
            layout=layout,
            features=features,
            reference_features=None if features is None else features(pictures),
            weights=weight_memory(layout, train, heldout),
            signals=VectorMemory.build(*rendered, standardise=False),
        )

    def judge(self, weights: dict[str, Tensor], decoder: FieldDecoder) -> Judged:
        """Score fields ``(N, *shape)``.

        Args:
            weights: The fields.
            decoder: What renders them.
        """
        flat, pictures = self.layout.flatten(weights).cpu(), render_pictures(weights, decoder)
        valid = flat.isfinite().all(dim=1) & pictures.isfinite().all(dim=(1, 2, 3))
        metrics = {"num": len(flat), "num_invalid": int((~valid).sum())}
        if self.features is not None and len(flat) >= LEAST:
            shown = torch.where(valid[:, None, None, None], pictures, GREY)
            metrics |= picture_set_scores(self.features(shown), self.reference_features)
        missing = torch.where(valid[:, None], 0.0, torch.nan)
        return judged(
            metrics,
            (self.weights.nearest(flat + missing), self.weights.heldout),
            (self.signals.nearest(pictures.flatten(1) + missing), self.signals.heldout),
            pictures,
        )


def picture_set_scores(samples: Tensor, references: Tensor) -> dict[str, float]:
    """``fd``, ``mmd_gaussian``, ``mmd_polynomial``, ``precision`` and ``recall`` of features ``(N, F)``, ``(R, F)``."""
    precision, recall = precision_recall(samples, references)
    return {
        "fd": frechet_distance(samples, references),
        "mmd_gaussian": mmd_gaussian(samples, references),
        "mmd_polynomial": mmd_polynomial(samples, references),
        "precision": precision,
        "recall": recall,
    }


@dataclass(frozen=True, kw_only=True)
class ShapeReferences:
    """What sets of fields of shapes are judged against; make one with :meth:`build` and use it for all sets.

    Attributes:
        layout: Layout of the fields.
        points: Normalised surface points ``(R, P, 3)`` of the real shapes.
        weights: Training fields by weights, coordinates over their standard deviation.
        train_points: Normalised surface points ``(M, P, 3)`` of the training fields that have a surface.
        train_rows: Places of those among the training fields, ``(M,)``.
        heldout: Nearest training field of each held-out field by surface.
        resolution: Cells of a side of the grid that meshes are found on.
        seed: Seed of the points on surfaces.
    """

    layout: Layout
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
        *,
        layout: Layout,
        decoder: FieldDecoder,
        train: dict[str, Tensor],
        heldout: dict[str, Tensor],
        points: np.ndarray,
        resolution: int,
        seed: int = 0,
        progress: ShowProgress = silent,
    ) -> "ShapeReferences":
        """Mesh and measure what all sets are compared with.

        Args:
            layout: Layout of the fields.
            decoder: What renders them.
            train: Training fields ``(M, *shape)``.
            heldout: Fields that the model has not seen ``(H, *shape)``.
            points: Normalised surface points ``(R, P, 3)`` of real shapes, finite.
            resolution: Cells of a side of the grid that meshes are found on.
            seed: Seed of the points on surfaces.
            progress: Shows how many training and held-out fields were meshed.

        Raises:
            UserError: There are too few fields or shapes, or no training field has a surface.
        """
        sizes = [len(next(iter(part.values()))) for part in (train, heldout)]
        check_numbers(*sizes, "fields")
        check_numbers(len(points), len(points), "real shapes")
        how = {"resolution": resolution, "num_points": points.shape[1]}
        # Points on the surfaces of the fields themselves: memorisation compares fields with fields.
        with progress("training and held-out fields meshed", sum(sizes)) as shown:
            rendered = [
                render_points(part, decoder, seed=seed + i, shown=shown, **how)
                for i, part in enumerate((train, heldout))
            ]
        # A training field without a surface can be nobody's neighbour.
        rows = np.flatnonzero(valid_shapes(rendered[0]))
        check_numbers(len(rows), len(rows), "training fields with a surface")
        return cls(
            layout=layout,
            points=points,
            weights=weight_memory(layout, train, heldout),
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

    def judge(self, weights: dict[str, Tensor], decoder: FieldDecoder) -> Judged:
        """Score fields ``(N, *shape)``; sets of shapes are compared as far as both go, since 1-NNA asks for equal ones.

        Args:
            weights: The fields.
            decoder: What renders them.
        """
        how = {"resolution": self.resolution, "num_points": self.points.shape[1]}
        flat, points = self.layout.flatten(weights).cpu(), render_points(weights, decoder, seed=self.seed + 2, **how)
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


def judged(
    metrics: dict[str, float],
    in_weights: tuple[Nearest, Nearest],
    in_signals: tuple[Nearest, Nearest],
    signals: Tensor | np.ndarray,
) -> Judged:
    """Add the scores of memorisation; each pair is that of the samples and that of the held-out fields."""
    by_signal = memorisation_scores(*in_signals)
    metrics = metrics | memorisation_scores(*in_weights) | {f"{name}_signal": by_signal[name] for name in by_signal}
    return Judged(metrics, in_weights[0], in_signals[0], signals)


def weight_memory(layout: Layout, train: dict[str, Tensor], heldout: dict[str, Tensor]) -> VectorMemory:
    """The training fields by weights; frozen weights do not vary and are left out."""
    return VectorMemory.build(layout.flatten(train), layout.flatten(heldout), standardise=True)


def stored_weights(store: WeightStore, rows: np.ndarray) -> dict[str, Tensor]:
    """Weights ``(N, *shape)`` of some fields of a store, in the order of ``rows``; it is read block by block."""
    targets = np.full(len(store), -1)
    targets[rows] = np.arange(len(rows))
    weights = {spec.name: torch.empty(len(rows), *spec.shape) for spec in store.layout}
    start = 0
    for batch in store.batches(READ_AT_ONCE):
        here = torch.from_numpy(targets[start : start + len(batch)])
        start += len(batch)
        for name, tensor in weights.items():
            tensor[here[here >= 0]] = batch.weights[name][here >= 0]
    return weights


def class_scores(features: PictureFeatures, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Which classes a classifier sees in pictures ``(N, C, H, W)``, and how sure it is of them.

    Args:
        features: A classifier.
        samples: Pictures of samples.
        real: Real pictures that it has not been trained on.

    Returns:
        ``num_classes``, ``num_classes_seen`` among the samples' most probable ones, ``class_entropy`` of those over
        that of equal shares, ``top_probability`` of the samples beside ``top_probability_real``.
    """
    probabilities = features.probabilities(samples)
    counts = torch.bincount(probabilities.argmax(dim=1), minlength=len(features.label_names))
    shares = counts[counts > 0] / counts.sum()
    return {
        "num_classes": len(counts),
        "num_classes_seen": int((counts > 0).sum()),
        "class_entropy": float(-(shares * shares.log()).sum() / np.log(max(len(counts), 2))),
        "top_probability": float(probabilities.amax(dim=1).mean()),
        "top_probability_real": float(features.probabilities(real).amax(dim=1).mean()),
    }


def check_numbers(first: int, second: int, what: str) -> None:
    """Refuse sets that are too small to be compared.

    Args:
        first: Members of one set, such as the training fields.
        second: Members of the other.
        what: What they are, for the message.

    Raises:
        UserError: The first has fewer than two, or the second none.
    """
    if min(first, second) < 1 or first < 2:
        numbers = f"{first}" if first == second else f"{first} and {second}"
        raise UserError(
            f"{numbers} {what} are too few to compare samples with",
            allowed="two or more of training, one or more held out",
            do="build a store of more signals, of a train and a test split where the source has them",
        )


def _nearest_shapes(points: np.ndarray, references: np.ndarray, rows: np.ndarray) -> Nearest:
    distances, places = nearest_shapes(points, references)
    return Nearest(torch.from_numpy(distances), torch.from_numpy(np.where(places >= 0, rows[places], -1)))
