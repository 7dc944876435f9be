"""Augmentation of weights in training: permutations that leave a field as it is, scaling, noise and dropping.

Letters: B fields, V trainable weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.options import SHARE, at_least, check, option
from wsrl.symmetry.spec.spec import PermutationSpec


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How the weights of a training batch are changed; all off unless asked for.

    Attributes:
        permute: Give every field a random permutation of its neurons or rank components.
        scale: Standard deviation of the logarithm of a random factor on the normalised weights of a field.
        noise: Standard deviation of Gaussian noise on the normalised weights.
        dropout: Share of the normalised weights that is set to zero, their mean.

    Raises:
        UserError: A value is out of range.
    """

    permute: bool = False
    scale: float = option(0.0, at_least(0))
    noise: float = option(0.0, at_least(0))
    dropout: float = option(0.0, SHARE)

    def __post_init__(self):
        check(self, "augment.")


UNCHANGED = AugmentConfig()
"""No augmentation."""


class Augmentation:
    """Changes batches of weights by random numbers from a generator alone.

    Args:
        config: What is changed, and how much.
        layout: Layout of the fields.

    Raises:
        UserError: Permutations are asked for and the layout has none.
    """

    def __init__(self, config: AugmentConfig, layout: Layout):
        self.config, self.spec = config, None
        if config.permute:
            if not any(axis for tensor in layout for axis in tensor.axes):
                raise UserError(
                    "augment.permute is on, but no permutation leaves these fields as they are",
                    allowed="fields without masks, such as the kinds mlp, lora and mlora",
                    do="leave augment.permute off for this store",
                )
            self.spec = PermutationSpec.from_layout(layout)

    def permuted(self, weights: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of the same fields with their neurons in another order, each field its own."""
        return weights if self.spec is None else self.spec.augment(weights, generator)

    def disturbed(self, vector: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised weights ``(B, V)``, scaled, with noise, with some dropped."""
        config, device = self.config, vector.device
        if config.scale:
            factor = torch.randn(len(vector), 1, generator=generator, device=device, dtype=vector.dtype)
            vector = vector * (config.scale * factor).exp()
        if config.noise:
            noise = torch.randn(vector.shape, generator=generator, device=device, dtype=vector.dtype)
            vector = vector + config.noise * noise
        if config.dropout:
            kept = torch.rand(vector.shape, generator=generator, device=device) >= config.dropout
            vector = vector * kept
        return vector
