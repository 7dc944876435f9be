"""Fields that are a latent of the base field, alone or beside an adapter."""

import copy

import pytest
import torch

from tests.contracts import points, tiny_base
from wsrl.fields import RepresentationConfig
from wsrl.fields.latent import LATENT, LatentAdapterRepresentation, LatentRepresentation
from wsrl.fields.representation import Representation
from wsrl.fitting.engine import FitConfig, optimise
from wsrl.training.base_data import SignalBatch
from wsrl.training.base_field import fit_latents

ADAPTER = RepresentationConfig(kind="mlora_asym", rank=2)
ROUNDING = 1e-5


@pytest.fixture
def base():
    return tiny_base().requires_grad_(False)


def latents(base, num=3):
    return torch.randn(num, base.config.latent_size, generator=torch.Generator().manual_seed(3))


def test_a_latent_is_the_modulated_base_field(base):
    representation, given = LatentRepresentation(base), latents(base)
    assert representation.layout.num_trainable == base.config.latent_size
    for coords in (points(), points().expand(3, -1, -1)):
        torch.testing.assert_close(representation.evaluate({LATENT: given}, coords), base(given, coords))
    assert not representation.initial()[LATENT].any()


def test_without_a_change_of_the_adapter_the_latent_alone_acts(base):
    representation, given = LatentAdapterRepresentation(ADAPTER, base), latents(base)
    start = {name: tensor.expand(3, *tensor.shape) for name, tensor in representation.initial().items()}
    found = representation.evaluate(start | {LATENT: given}, points())
    torch.testing.assert_close(found, base(given, points()), rtol=ROUNDING, atol=ROUNDING)
    assert (found - base.trunk(points())).abs().max() > 0.01


def test_the_adapter_acts_on_the_trunk_that_the_latent_modulates(base):
    both, alone = LatentAdapterRepresentation(ADAPTER, base), Representation.build(ADAPTER, base)
    generator = torch.Generator().manual_seed(4)
    weights = {k: v + 0.3 * torch.randn(2, *v.shape, generator=generator) for k, v in alone.initial().items()}
    given = latents(base, 2)
    found = both.evaluate(weights | {LATENT: given}, points())
    # Each field as a network of modules: the adapted weights, their columns times the factors of its latent.
    for row, scales in enumerate(zip(*base.modulation(given))):
        network, (layers, _) = (
            copy.deepcopy(base.trunk),
            alone.layers({k: w[row : row + 1] for k, w in weights.items()}),
        )
        for layer, weight, scale in zip(network.layers, layers, scales):
            layer.weight.copy_(weight.squeeze(0) * scale if weight.ndim == 3 else weight * scale)
        torch.testing.assert_close(found[row], network(points()), rtol=ROUNDING, atol=ROUNDING)
    assert both.layout.num_trainable == alone.layout.num_trainable + base.config.latent_size


def test_the_engine_fits_latents_as_the_training_of_the_base_field_does(base):
    """Both take Adam steps from zero under a cosine; the engine also brings back fields that blow up."""
    representation, coords = LatentRepresentation(base), points()
    values = base(latents(base), coords)
    expected = fit_latents(base, SignalBatch(torch.arange(3), coords, values, None), steps=60, learning_rate=0.1)
    start = {LATENT: torch.zeros(3, base.config.latent_size)}
    config = FitConfig(steps=60, learning_rate=0.1, warmup=0.0, gradient="autograd")
    found = optimise(representation, start, coords, values, config)[LATENT]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    start_error = (base(start[LATENT], coords) - values).square().mean()
    assert (base(found, coords) - values).square().mean() < 0.3 * start_error


def test_the_engine_fits_both_together_and_leaves_frozen_entries(base):
    representation, coords = LatentAdapterRepresentation(ADAPTER, base), points()
    values = torch.rand(3, len(coords), 1, generator=torch.Generator().manual_seed(5))
    start = {name: tensor.expand(3, *tensor.shape) for name, tensor in representation.initial().items()}
    found = optimise(representation, start, coords, values, FitConfig(steps=60, learning_rate=0.1))
    errors = [(representation.evaluate(w, coords) - values).square().mean() for w in (start, found)]
    assert errors[1] < 0.3 * errors[0]
    flat = representation.layout.flatten
    moved = flat(found) != flat(start)
    assert moved[:, representation.layout.trainable()].float().mean() > 0.9
    assert not moved[:, ~representation.layout.trainable()].any() and (found[LATENT] != 0).all()
