"""The fields of a store as signals: where an autoencoder compares them, on what scale, and by whose eyes.

Letters: B fields, P points, C channels, H height, W width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.picture_features import open_classifier
from wsrl.signals.fidelity import in_quantity
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.training.ema_task import VALIDATION_SEED

VARIANCE_FIELDS = 256
"""Training fields whose rendered values say how large an error of the signal is."""

TEST_POINTS = 2048
"""Points at which fields without a grid are compared."""

FLOOR = 1e-3
"""Least variance of a level's features, as a share of their mean square."""


class PerceptualLoss(nn.Module):
    """Squared distance between the feature maps of two sets of pictures at every level of a classifier.

    Each level's error is a share of the variance of its features between pictures, as :meth:`measure` found it, and the
    levels count alike: the maps after each convolution, and the mean of the last one over the picture.

    Args:
        folder: Folder of a classifier of pictures, as ``wsrl eval generation`` keeps them. Scores on features of the
            same classifier would flatter a network that was trained with it: give it one of its own.

    Raises:
        UserError: The folder holds none.

    Source: after Zhang et al., CVPR 2018, arXiv 1801.03924 (LPIPS), with variances in place of learned weights.
    """

    def __init__(self, folder: Path | str):
        super().__init__()
        self.classifier = open_classifier(Path(folder))[0].eval()
        self.register_buffer("variances", torch.ones(len(self.classifier.convolutions) + 1))

    def levels(self, pictures: Tensor) -> list[Tensor]:
        """Features of each level, of pictures ``(B, C, H, W)`` in [0, 1]."""
        channels = self.classifier.convolutions[0].in_channels
        if pictures.shape[1] != channels:
            raise UserError(
                f"the classifier reads pictures of {channels} channels and the fields have {pictures.shape[1]}",
                allowed="a classifier of the same kind of pictures",
                do="choose another --model.perceptual",
            )
        maps = self.classifier.stages(pictures)
        return [*maps, maps[-1].mean(dim=(2, 3))]

    @torch.no_grad()
    def measure(self, pictures: Tensor) -> None:
        """Take the variances from some pictures ``(B, C, H, W)``."""
        for i, level in enumerate(self.levels(pictures)):
            variance = level.var(dim=0, correction=0).mean()
            self.variances[i] = torch.maximum(variance, FLOOR * level.square().mean()).clamp_min(1e-12)

    def forward(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """Mean over levels of the error of pictures ``(B, C, H, W)``, as a share of the variance of each."""
        with torch.no_grad():
            targets = self.levels(wanted)
        errors = [(one - other).square().mean() for one, other in zip(self.levels(pictures), targets)]
        return (torch.stack(errors) / self.variances).mean()


class StoredSignals:
    """The fields of a store as signals: where they are compared, and on what scale.

    Args:
        store: The store.
    """

    def __init__(self, store: WeightStore):
        self.decoder = FieldDecoder.from_store(store)
        self.representation = self.decoder.representation
        self.form = store.form
        self.perceptual: PerceptualLoss | None = None

    def values(self, weights: dict[str, Tensor], coords: Tensor) -> Tensor:
        """Values ``(B, P, C)`` of weights ``(B, *shape)`` in the quantity of the signals; differentiable."""
        values = self.representation.to(coords.device).evaluate(weights, coords)
        return in_quantity(values, self.form)

    def points(self, num: int, generator: torch.Generator) -> Tensor:
        """Points ``(P, D)``, uniform in [-1, 1]^D."""
        shape = (num, self.form.in_features)
        return 2.0 * torch.rand(shape, generator=generator, device=generator.device) - 1.0

    def fixed_points(self) -> Tensor:
        """The grid of the data, or the same random points each time."""
        if self.form.grid is not None:
            return grid_coords(self.form.grid)
        return self.points(TEST_POINTS, torch.Generator().manual_seed(VALIDATION_SEED))

    def pictures(self, values: Tensor) -> Tensor:
        """Pictures ``(B, C, H, W)`` of values ``(B, P, C)`` on the grid of the data."""
        return values.mT.unflatten(2, self.form.grid)

    @torch.no_grad()
    def some_values(self, batches, coords: Tensor) -> Tensor:
        """Values ``(B, P, C)`` of the first ``VARIANCE_FIELDS`` stored fields."""
        values, num = [], 0
        for batch in batches:
            values.append(self.values(batch.weights, coords))
            if (num := num + len(batch)) >= VARIANCE_FIELDS:
                break
        return torch.cat(values)[:VARIANCE_FIELDS]

    def variance(self, batches, seed: int) -> Tensor:
        """Variance between stored fields of their values at a point, mean over points."""
        coords = self.points(256, torch.Generator().manual_seed(seed))
        return self.some_values(batches, coords).var(dim=0, correction=0).mean().clamp_min(1e-12)

    def look_through(self, classifier: str, batches) -> None:
        """Compare pictures by the features of a classifier in a folder from now on.

        Raises:
            UserError: The fields are no pictures, or the folder holds no classifier of such pictures.
        """
        if self.form.grid is None or self.form.is_shape:
            raise UserError(
                "model.perceptual is given for fields of shapes",
                allowed="a classifier of pictures for fields of pictures",
                do="leave out model.perceptual",
            )
        self.perceptual = PerceptualLoss(classifier)
        self.perceptual.measure(self.pictures(self.some_values(batches, self.fixed_points())))
