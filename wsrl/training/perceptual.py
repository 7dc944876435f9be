"""How different pictures look to a classifier: a loss that does not forgive blur as a squared error does.

Letters: B pictures, C channels, H height, W width, F features.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.evaluation.picture_features import open_classifier

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

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Mean over levels of the error of pictures ``(B, C, H, W)``, as a share of the variance of each."""
        with torch.no_grad():
            targets = self.levels(wanted)
        errors = [(one - other).square().mean() for one, other in zip(self.levels(found), targets)]
        return (torch.stack(errors) / self.variances).mean()
