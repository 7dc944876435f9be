"""Fields whose numbers are a latent of the base field: alone, or beside an adapter of the modulated trunk.

The engine fits them by autograd as it fits any representation; they are not kept in stores.

Letters: N fields, P points, F features of the encoding, C channels, Z latent size.
"""

import torch
from torch import Tensor

from wsrl.fields.layout import Layout, TensorSpec
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.network import apply_layers
from wsrl.fields.representation import AdapterRepresentation, Representation, RepresentationConfig

LATENT = "latent"


def latent_spec(size: int) -> TensorSpec:
    """A latent of so many numbers as one tensor of a field."""
    return TensorSpec(name=LATENT, shape=(size,), axes=(None,), group=LATENT, token_axis=0)


class LatentRepresentation(Representation):
    """A field is a latent ``(Z,)``, which starts at zero; its network is the base field that the latent modulates.

    Source: functa, Dupont et al., ICML 2022, section 3, with the modulation and the training of arXiv 2512.01759,
    stage 1, instead of theirs: scales instead of shifts, and latents that are trained beside the network.

    Args:
        base: A trained base field.
    """

    def __init__(self, base: BaseField):
        super().__init__(RepresentationConfig(), base, base.in_features, base.out_features)

    def _set_up(self) -> None:
        self.layout = Layout((latent_spec(self.base.config.latent_size),))

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {LATENT: torch.zeros(self.base.config.latent_size)}

    def evaluate_encoded(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        """Values ``(N, C, P)`` for points that :attr:`encoding` has encoded, ``(F, P)`` or ``(N, F, P)``."""
        return self.base.evaluate_encoded(weights[LATENT], features)


class LatentAdapterRepresentation(AdapterRepresentation):
    """A field is an adapter and a latent ``(Z,)``: the adapter changes the trunk, which the latent modulates then.

    Args:
        config: The adapter.
        base: A trained base field.
    """

    def __init__(self, config: RepresentationConfig, base: BaseField):
        super().__init__(config, base, base.in_features, base.out_features)

    def _set_up(self) -> None:
        super()._set_up()
        self.layout = Layout((*self.layout, latent_spec(self.base.config.latent_size)))

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        return super()._start(generator) | {LATENT: torch.zeros(self.base.config.latent_size)}

    def evaluate_encoded(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        """Values ``(N, C, P)`` for points that :attr:`encoding` has encoded, ``(F, P)`` or ``(N, F, P)``."""
        layer_weights, biases = self.layers(weights)
        scales = self.base.modulation(weights[LATENT])
        modulated = [weight * scale.unsqueeze(-2) for weight, scale in zip(layer_weights, scales)]  # (N, out, in)
        return apply_layers(self.field_config, features, modulated, biases)
