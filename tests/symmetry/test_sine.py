"""Sine networks in canonical form: the same function, one form for all signs and phases of the neurons."""

import math

import pytest
import torch

from wsrl.errors import UserError
from wsrl.fields import FieldConfig, Representation, RepresentationConfig
from wsrl.symmetry import PermutationSpec
from wsrl.symmetry.fields.sine import canonical_sines, sine_layers

OMEGAS = (10.0, 1.0)


@pytest.fixture(scope="module")
def representation():
    field = FieldConfig(width=6, depth=2, encoding="identity", activation="sine", omega=OMEGAS[0])
    config = RepresentationConfig(kind="mlp", start="random", field=field)
    return Representation.build(config, in_features=2, out_features=3)


@pytest.fixture(scope="module")
def weights(representation):
    weights = representation.initial(torch.Generator().manual_seed(0), num=5)
    return {name: tensor.double() * 2 for name, tensor in weights.items()}


def disguised(weights, layers):
    """The same functions with other signs and phases, neuron by neuron."""
    weights, generator = dict(weights), torch.Generator().manual_seed(1)
    for layer in layers:
        size = weights[layer.bias].shape
        sign = torch.randint(0, 2, size, generator=generator) * 2.0 - 1
        turns = torch.randint(-3, 4, size, generator=generator).double()
        weights[layer.weight] = weights[layer.weight] * sign[..., None]
        weights[layer.bias] = weights[layer.bias] * sign + turns * math.pi / layer.omega
        for name in layer.readers:
            weights[name] = weights[name] * (sign * (1 - 2 * (turns % 2)))[..., None, :]
    return weights


def test_the_function_stays_and_disguises_fall(representation, weights):
    layers = sine_layers(representation.layout, OMEGAS)
    coords = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    canonical, other = canonical_sines(weights, layers), disguised(weights, layers)
    expected = representation.evaluate(weights, coords)
    assert torch.allclose(representation.evaluate(canonical, coords), expected, atol=1e-10)
    assert torch.allclose(representation.evaluate(other, coords), expected, atol=1e-10)
    again = canonical_sines(other, layers)
    for name in weights:
        assert torch.allclose(again[name], canonical[name], atol=1e-10)
        assert not torch.allclose(other[name], weights[name], atol=1e-3) or name == "layers.2.bias"
    assert (canonical["layers.0.weight"].sum(-1) >= 0).all()
    assert (canonical["layers.0.bias"].abs() * OMEGAS[0] <= math.pi / 2 + 1e-9).all()


def test_permuted_fields_stay_permuted(representation, weights):
    layers, spec = sine_layers(representation.layout, OMEGAS), PermutationSpec.from_layout(representation.layout)
    permutation = spec.random_permutation(torch.Generator().manual_seed(2))
    canonical = canonical_sines(spec.apply(weights, permutation), layers)
    expected = spec.apply(canonical_sines(weights, layers), permutation)
    assert all(torch.allclose(canonical[name], expected[name], atol=1e-10) for name in weights)


def test_a_wrong_omega_changes_the_function(representation, weights):
    coords = torch.zeros(1, 2, dtype=torch.float64)
    canonical = canonical_sines(weights, sine_layers(representation.layout, (7.0, 1.0)))
    assert not torch.allclose(representation.evaluate(canonical, coords), representation.evaluate(weights, coords))


@pytest.mark.parametrize("omegas", [(10.0,), (10.0, 1.0, 1.0)])
def test_one_omega_for_each_layer(representation, omegas):
    with pytest.raises(UserError, match="omegas are given"):
        sine_layers(representation.layout, omegas)
