"""Sets of fields of pictures, judged against real pictures and training fields.

Fréchet distance, two kernel distances, precision and recall on features; nearness to training in weights and pixels.

Letters: N fields, R references, M training fields, H held-out fields, P points, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.generation import Judged, KnownFields, check_numbers, judged
from wsrl.evaluation.memorisation import VectorMemory
from wsrl.evaluation.picture_features import PictureFeatures
from wsrl.evaluation.picture_sets import frechet_distance, mmd_gaussian, mmd_polynomial, precision_recall
from wsrl.signals.signal import grid_coords

GREY = 0.5
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


@dataclass(frozen=True, kw_only=True)
class PictureReferences:
    """What sets of fields of pictures are judged against; make one with :meth:`build` and use it for all sets.

    Attributes:
        fields: Training and held-out fields.
        features: What turns pictures into features; None leaves the scores that need them out.
        reference_features: Features ``(R, F)`` of the real pictures.
        weights: Training fields by weights, coordinates over their standard deviation.
        signals: Training fields by pictures.
    """

    fields: KnownFields
    features: PictureFeatures | None
    reference_features: Tensor | None
    weights: VectorMemory
    signals: VectorMemory

    @classmethod
    def build(
        cls, fields: KnownFields, features: PictureFeatures | None, pictures: Tensor | None
    ) -> "PictureReferences":
        """Render and measure what all sets are compared with.

        Args:
            fields: Training and held-out fields.
            features: What turns pictures into features.
            pictures: Real pictures ``(R, C, H, W)``; needed where there are features.

        Raises:
            UserError: There are too few pictures.
        """
        if features is not None:
            check_numbers(len(pictures), len(pictures), "real pictures")
        rendered = [render_pictures(part, fields.decoder).flatten(1) for part in (fields.train, fields.heldout)]
        return cls(
            fields=fields,
            features=features,
            reference_features=None if features is None else features(pictures),
            weights=fields.weight_memory(),
            signals=VectorMemory.build(*rendered, standardise=False),
        )

    def judge(self, weights: dict[str, Tensor]) -> Judged:
        """Score fields ``(N, *shape)``."""
        flat, pictures = self.fields.layout.flatten(weights).cpu(), render_pictures(weights, self.fields.decoder)
        valid = flat.isfinite().all(dim=1) & pictures.isfinite().all(dim=(1, 2, 3))
        metrics = {"num": len(flat), "num_invalid": int((~valid).sum())}
        # On features a field that is not finite is a grey picture; for memorisation it is missing.
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
