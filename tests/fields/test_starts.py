"""Starts that lie apart: how near they are, what stays, and that every one of them is still a start."""

import math

import pytest
import torch
from contracts import CASES, ROUNDING, points, tiny_representation

from wsrl.errors import UserError
from wsrl.fields.starts import start_apart


def apart(representation, distance, seed=5):
    return start_apart(representation, representation.initial(), distance, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_the_ends_are_the_same_start_and_a_fresh_one(kind, form):
    representation = tiny_representation(kind, form)
    first, fresh = representation.initial(), representation.initial(torch.Generator().manual_seed(5))
    same, other = apart(representation, 0.0), apart(representation, 1.0)
    assert all(torch.equal(same[name], first[name]) for name in first)
    for spec in representation.layout:
        expected = torch.where(spec.trainable(), fresh[spec.name], first[spec.name])
        assert torch.allclose(other[spec.name], expected, atol=ROUNDING)
    assert not torch.equal(representation.layout.flatten(other), representation.layout.flatten(first))


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_frozen_entries_stay(kind, form):
    representation = tiny_representation(kind, form)
    frozen = ~representation.layout.trainable()
    first, between = (representation.layout.flatten(w) for w in (representation.initial(), apart(representation, 0.6)))
    assert torch.equal(first[frozen], between[frozen])
    assert not torch.equal(first[~frozen], between[~frozen])


@pytest.mark.parametrize(("kind", "form"), [case for case in CASES if "lora" in case[0]])
def test_every_start_of_an_adapter_is_its_base_field(kind, form):
    representation = tiny_representation(kind, form)
    coords = points()
    base = representation.base.trunk(coords)
    for distance in (0.0, 0.3, 0.8, 1.0):
        start = {name: tensor[None] for name, tensor in apart(representation, distance).items()}
        assert torch.allclose(representation.evaluate(start, coords)[0], base, atol=ROUNDING)


def test_a_linear_mix_of_starts_about_a_constant_is_not_the_base_field():
    representation = tiny_representation("mlora", "product")
    first, fresh = representation.initial(), representation.initial(torch.Generator().manual_seed(5))
    mix = {name: (0.8 * first[name] + 0.6 * fresh[name])[None] for name in first}
    coords = points()
    assert not torch.allclose(representation.evaluate(mix, coords)[0], representation.base.trunk(coords), atol=0.05)


@pytest.mark.parametrize("kind", ["mlp", "lora"])
@pytest.mark.parametrize("distance", [0.3, 0.6])
def test_the_std_stays_and_the_correlation_falls(kind, distance):
    representation = tiny_representation(kind, rank=400)
    name = "layers.1.down" if kind == "lora" else "layers.1.weight"
    pairs = [(representation.initial()[name], apart(representation, distance)[name])]
    for seed in range(40 if kind == "mlp" else 1):
        first = representation.initial(torch.Generator().manual_seed(100 + seed))
        second = start_apart(representation, first, distance, torch.Generator().manual_seed(200 + seed))
        pairs.append((first[name], second[name]))
    first, second = (torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1))
    assert (second.std() / first.std()).item() == pytest.approx(1, abs=0.05)
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1].item()
    assert correlation == pytest.approx(math.sqrt(1 - distance**2), abs=0.05)


@pytest.mark.parametrize("distance", [-0.1, 1.5])
def test_a_distance_outside_is_refused(distance):
    with pytest.raises(UserError, match="0 to 1"):
        apart(tiny_representation("lora"), distance)
