"""Augmentation: what each part does, that it is off by default, that a generator decides all."""

import pytest
import torch

from wsrl.errors import UserError
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.training.augmentation import Augmentation, AugmentConfig


@pytest.fixture
def representation():
    config = RepresentationConfig(
        kind="mlp", field=FieldConfig(width=6, depth=2, encoding="identity", activation="sine", omega=5.0)
    )
    return Representation.build(config, in_features=2, out_features=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_permuted_fields_are_the_same_fields_in_another_order(representation):
    weights = representation.initial(generator(1), 4)
    permuted = Augmentation(AugmentConfig(permute=True), representation.layout).permuted(weights, generator())
    assert all(not torch.equal(permuted["layers.1.weight"][i], weights["layers.1.weight"][i]) for i in range(4))
    coords = torch.rand(9, 2, generator=generator(2)) * 2 - 1
    values = representation.evaluate(weights, coords)
    assert torch.allclose(representation.evaluate(permuted, coords), values, atol=1e-5)
    one_bias = weights | {"layers.0.bias": permuted["layers.0.bias"]}
    assert not torch.allclose(representation.evaluate(one_bias, coords), values, atol=1e-3)


def test_nothing_is_changed_unless_asked_for(representation):
    augmentation = Augmentation(AugmentConfig(), representation.layout)
    weights, vector = representation.initial(generator(1), 4), torch.randn(4, 5, generator=generator(2))
    assert augmentation.permuted(weights, generator()) is weights
    assert augmentation.disturbed(vector, generator()) is vector


def test_scale_noise_and_dropping_do_what_they_say(representation):
    vector = torch.full((400, 300), 2.0)

    def disturbed(**options):
        return Augmentation(AugmentConfig(**options), representation.layout).disturbed(vector, generator())

    scaled = disturbed(scale=0.1)
    assert torch.equal(scaled, scaled[:, :1].expand_as(scaled)), "one factor for all weights of a field"
    assert abs((scaled[:, 0] / 2).log().std() - 0.1) < 0.01
    noisy = disturbed(noise=0.5) - vector
    assert abs(noisy.std() - 0.5) < 0.01 and abs(noisy.mean()) < 0.01
    dropped = disturbed(dropout=0.25)
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and abs((dropped == 0).float().mean() - 0.25) < 0.01


def test_the_generator_decides_all(representation):
    config = AugmentConfig(permute=True, scale=0.2, noise=0.1, dropout=0.1)
    weights, vector = representation.initial(generator(1), 4), torch.randn(4, 5, generator=generator(2))

    def changed(seed):
        source, augmentation = generator(seed), Augmentation(config, representation.layout)
        permuted = representation.layout.flatten(augmentation.permuted(weights, source))
        return torch.cat([permuted, augmentation.disturbed(vector, source)], dim=1)

    assert torch.equal(changed(3), changed(3)) and not torch.equal(changed(3), changed(4))


@pytest.mark.parametrize("name, value", [("scale", -0.1), ("noise", -1.0), ("dropout", 1.0)])
def test_wrong_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=rf"augment.{name} is .* Allowed: .* What to do: "):
        AugmentConfig(**{name: value})


def test_masked_fields_have_no_permutations_to_draw():
    config = RepresentationConfig(kind="mlp_asym", field=FieldConfig(width=8, depth=2))
    masked = Representation.build(config, in_features=2, out_features=1)
    with pytest.raises(UserError, match="no permutation leaves these fields as they are"):
        Augmentation(AugmentConfig(permute=True), masked.layout)
