"""One suite for the six kinds of representation and every form of the multiplicative ones."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import UserError
from wsrl.fields.open import open_representation
from wsrl.fields.representation import Representation, RepresentationConfig

CHECKS = [
    contracts.check_flatten_is_exact,
    contracts.check_json_round_trip,
    contracts.check_frozen_entries,
    contracts.check_every_column_is_free_somewhere,
    contracts.check_batch_equals_single,
    contracts.check_gradients,
    contracts.check_starts,
]
ADAPTERS = [(kind, form) for kind, form in contracts.CASES if "lora" in kind]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize(("in_features", "out_features"), contracts.DIMENSIONS)
@pytest.mark.parametrize(("kind", "form"), contracts.CASES)
def test_contract(kind, form, in_features, out_features, check):
    check(contracts.tiny_representation(kind, form, in_features, out_features))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize(("kind", "form"), ADAPTERS)
def test_adapter_starts_at_its_base_and_leaves_it(kind, form, rank):
    contracts.check_starts_at_base(contracts.tiny_representation(kind, form, 2, 3, rank=rank))


def test_check_of_the_start_sees_an_adapter_that_starts_elsewhere():
    representation = contracts.tiny_representation("mlora")
    elsewhere = {name: value[0] for name, value in contracts.random_weights(representation).items()}
    representation.initial = lambda: elsewhere
    with pytest.raises(AssertionError, match="not close"):
        contracts.check_starts_at_base(representation)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["lora_asym", "mlora_asym", "mlp_asym"])
def test_mask_fraction(kind, fraction):
    representation = contracts.tiny_representation(kind, mask_fraction=fraction, rank=4)
    contracts.check_every_column_is_free_somewhere(representation)
    for spec in representation.layout:
        if spec.name.endswith("down"):
            limit = min(fraction, 1 - max(spec.shape) / spec.size)
            assert (~spec.trainable()).sum() == round(limit * spec.size)


def test_multiplicative_mask_freezes_zeros_and_the_others_large_values():
    for kind in ("mlora_asym", "lora_asym", "mlp_asym"):
        representation = contracts.tiny_representation(kind, rank=4)
        flat = representation.layout.flatten(representation.initial())
        frozen = flat[~representation.layout.trainable()]
        assert (frozen == 0).all() if kind == "mlora_asym" else (frozen != 0).all()


@pytest.mark.parametrize("form", ["exp", "one_plus"])
def test_multiplicative_mask_can_freeze_large_values_too(form):
    """They are fixed, of the deviation asked for, and the field still starts at the base."""
    how = {"rank": 8, "mask_fraction": 0.5, "frozen_at": "random", "frozen_scale": 10.0, "init_std": 0.5}
    representation = contracts.tiny_representation("mlora_asym", form, **how)
    contracts.check_starts_at_base(representation)
    trainable = representation.layout.trainable()
    flat = [representation.layout.flatten(representation.initial(torch.Generator().manual_seed(i))) for i in (0, 1)]
    frozen = flat[0][~trainable]
    assert torch.equal(frozen, flat[1][~trainable]) and not torch.equal(flat[0], flat[1])
    assert frozen.std().item() == pytest.approx(5.0, rel=0.3)
    again = open_representation(representation.to_dict(), representation.base)
    assert again.config == representation.config


def test_where_entries_are_frozen_is_said_only_where_it_is_not_zero():
    """Stores from before there was a choice go on as the same build."""
    assert "frozen_at" not in contracts.tiny_representation("mlora_asym").to_dict()
    assert contracts.tiny_representation("mlora_asym", frozen_at="random").to_dict()["frozen_at"] == "random"
    with pytest.raises(UserError, match="frozen_at is 'random' and the form is product"):
        RepresentationConfig(kind="mlora_asym", form="product", frozen_at="random")


def test_parameter_counts_are_comparable():
    """At one rank the adapters have the same factors; a mask takes its share of A."""
    counts = {kind: contracts.tiny_representation(kind, rank=4).layout for kind, _ in contracts.CASES}
    print({kind: (layout.num_trainable, layout.num_weights) for kind, layout in counts.items()})
    weights = contracts.SMALL.layer_shapes(2, 1)[:-1]
    factors = sum(4 * (fan_in + fan_out) for fan_out, fan_in in weights)
    masked = sum(round(0.25 * 4 * fan_in) for _, fan_in in weights)
    for kind in ("lora", "mlora"):
        assert counts[kind].num_trainable == counts[kind].num_weights == factors
        assert counts[f"{kind}_asym"].num_weights == factors
        assert counts[f"{kind}_asym"].num_trainable == factors - masked
    assert counts["mlp"].num_weights == counts["mlp_asym"].num_weights == counts["mlp"].num_trainable
    assert counts["mlp_asym"].num_trainable < counts["mlp"].num_trainable


def test_symmetry_that_the_layout_names_leaves_the_field_unchanged():
    """Permuting rank components or hidden neurons changes nothing; the same permutation of another axis does."""
    coords = contracts.points()
    for kind, axis in (("mlora", "layers.1.rank"), ("lora", "layers.0.rank"), ("mlp", "neurons.0")):
        representation = contracts.tiny_representation(kind, rank=4)
        weights = contracts.random_weights(representation)
        expected = representation.evaluate(weights, coords)
        permuted, spoiled = dict(weights), dict(weights)
        for spec in representation.layout:
            for number, name in enumerate(spec.axes):
                if name == axis:
                    permuted[spec.name] = permuted[spec.name].roll(1, number + 1)
                    if number == 0:
                        spoiled[spec.name] = permuted[spec.name]
        torch.testing.assert_close(
            representation.evaluate(permuted, coords), expected, rtol=contracts.ROUNDING, atol=contracts.ROUNDING
        )
        assert (representation.evaluate(spoiled, coords) - expected).abs().max() > 1e-3
        masked = contracts.tiny_representation(f"{kind}_asym")
        assert all(name is None for spec in masked.layout for name in spec.axes)


def test_adapters_share_the_base_and_do_not_change_it():
    representation = contracts.tiny_representation("mlora_asym")
    before = representation.base.sha256()
    _, weights = contracts.fitted(representation)
    assert representation.base.sha256() == before
    assert not any(value.requires_grad for value in weights.values())


def test_adapter_without_a_base_is_refused():
    with pytest.raises(UserError, match=r"mlora_asym adapts a base field and none was given.*pass --base DIR"):
        Representation.build(RepresentationConfig(), None, in_features=2, out_features=1)


@pytest.mark.parametrize(("asked", "text"), [((3, 1), "3 to 1"), ((2, 3), "2 to 3")])
def test_base_of_other_dimensions_is_refused(asked, text):
    base = contracts.tiny_base(2, 1)
    with pytest.raises(UserError, match=rf"maps 2 coordinates to 1 channels, the data need {text}.*What to do"):
        Representation.build(RepresentationConfig(), base, in_features=asked[0], out_features=asked[1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "dora"}, "kind is 'dora'.*Allowed: mlp, mlp_asym"),
        ({"form": "log"}, "form is 'log'.*Allowed: exp, one_plus, product"),
        ({"start": "zero"}, "start is 'zero'.*Allowed: shared, random"),
        ({"rank": 0}, "rank is 0.*1 or more"),
        ({"frozen_at": "one"}, "frozen_at is 'one'.*Allowed: zero, random"),
        ({"mask_fraction": 1.0}, "mask_fraction is 1.0.*not including, 1"),
        ({"mask_fraction": -0.1}, "mask_fraction is -0.1"),
    ],
)
def test_wrong_configuration_is_refused(change, text):
    with pytest.raises(UserError, match=text):
        RepresentationConfig(**change)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"width": 0}, "field.width is 0"), ({"encoding": "hash"}, "'hash'"), ({"activation": "tanh"}, "'tanh'")],
)
def test_wrong_architecture_is_refused(change, text):
    with pytest.raises(UserError, match=text):
        replace(contracts.STANDALONE, **change)
