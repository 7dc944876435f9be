"""Tiny representations and stores of weights for the tests of this folder."""

import torch

from wsrl.encoders.normalisation import WeightStatistics
from wsrl.fields.base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig

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
