"""Tiny representations and stores of weights for the tests of this folder."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.form import SignalForm

FIELD = FieldConfig(width=6, depth=2, num_frequencies=3)


def adapter_representation():
    config = BaseFieldConfig(field=FIELD, latent_size=4, mapping_width=8, mapping_depth=1)
    base = BaseField(config, 2, 1).eval().requires_grad_(False)
    return Representation.build(RepresentationConfig(kind="mlora_asym", rank=2), base)


def standalone_representation():
    config = RepresentationConfig(kind="mlp", field=FIELD)
    return Representation.build(config, in_features=2, out_features=1)


def random_fields(representation, num, seed=0):
    """Fields scattered about the shared start, with their own mean and size in each coordinate."""
    generator = torch.Generator().manual_seed(seed)
    layout = representation.layout
    scale = torch.rand(layout.num_weights, generator=generator) * layout.trainable() * 0.3
    flat = layout.flatten(representation.initial())
    return layout.unflatten(flat + scale * (1 + torch.randn(num, layout.num_weights, generator=generator)))


def statistics_of(representation, num=64):
    return WeightStatistics.from_batches(representation.layout, [random_fields(representation, num)])


class GaussianDenoiser(ModelMixin, ConfigMixin):
    """The best denoiser of vectors from one normal distribution, under the noise process of diffusers' DDPM.

    Args:
        vector_size: Length V of the vectors.
        mean: Of every coordinate.
        std: Of every coordinate.
        process: Arguments of ``training_scheduler``.
    """

    @register_to_config
    def __init__(self, vector_size: int, mean: float = 3.0, std: float = 0.3, process: dict | None = None):
        super().__init__()
        self.vector_size = vector_size
        self.one = torch.nn.Parameter(torch.ones(()))
        kept = training_scheduler(**(process or {})).alphas_cumprod.double()
        self.log_ratio = ((1 - kept) / kept).sqrt().log()
        self.kind = (process or {}).get("prediction_type", "v_prediction")

    def forward(self, vector, timestep, class_labels=None):
        """Prediction for noisy vectors, at timesteps between those of training too."""
        place = torch.as_tensor(timestep).reshape(-1)[:1].double()
        low = place.long().clamp(0, len(self.log_ratio) - 2)
        ratio = torch.lerp(self.log_ratio[low], self.log_ratio[low + 1], place - low).exp()
        signal = 1 / (1 + ratio**2).sqrt()
        spread, mean, std = signal * ratio, self.config.mean, self.config.std
        noise = spread * (vector - signal * mean) / (signal**2 * std**2 + spread**2)
        clean = (vector - spread * noise) / signal
        velocity = signal * noise - spread * clean
        return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[self.kind].to(vector.dtype) * self.one


def picture_form(representation, grid) -> SignalForm:
    """The form of pictures on a grid that a representation has fields of."""
    return SignalForm(in_features=2, out_features=representation.out_features, grid=grid)
