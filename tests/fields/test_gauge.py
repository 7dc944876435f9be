"""The gauge of low-rank factors: one form for each class, the same function, and what a mask leaves of the freedom."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import UserError
from wsrl.fields.gauge import canonical_factors, check_gauge, factor_pairs

ADAPTERS = [(kind, form) for kind, form in contracts.CASES if "lora" in kind]
FREE = [(kind, form) for kind, form in ADAPTERS if not kind.endswith("_asym")]
# Canonical factors are rounded once, to float32; products of sixteen such numbers stay well within this.
SAME = 1e-6


def weights_of(representation, num=5, seed=0):
    """Weights ``(N, *shape)`` away from the start, frozen entries as every field has them."""
    generator, start = torch.Generator().manual_seed(seed), representation.initial()
    noise = {spec.name: torch.randn(num, *spec.shape, generator=generator) for spec in representation.layout}
    return {
        spec.name: torch.where(spec.trainable(), start[spec.name] + 0.3 * noise[spec.name], start[spec.name])
        for spec in representation.layout
    }


def products(representation, weights):
    """The products ``B A`` of all layers in float64."""
    pairs = factor_pairs(representation.layout)
    return [weights[pair.up.name].double() @ weights[pair.down.name].double() for pair in pairs]


def moved(representation, weights, transforms):
    """``(R^-1 A, B R)`` for a function from a pair of factors to ``R`` ``(N, r, r)``; in float64, rounded once."""
    found = dict(weights)
    for pair in factor_pairs(representation.layout):
        down, up = weights[pair.down.name], weights[pair.up.name]
        matrix = transforms(pair, len(up)).double()
        found[pair.down.name] = torch.linalg.solve(matrix, down.double()).to(down)
        found[pair.up.name] = (up.double() @ matrix).to(up)
    return found


def well_conditioned(generator, num, rank):
    """Random invertible matrices, none of them near to singular ones."""
    left, right = (torch.linalg.qr(torch.randn(num, rank, rank, generator=generator))[0] for _ in range(2))
    return left @ torch.diag_embed(0.5 + torch.rand(num, rank, generator=generator)) @ right


def assert_close(first, second, tolerance):
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("kind", "form"), contracts.CASES)
def test_the_function_stays(kind, form):
    representation = contracts.tiny_representation(kind, form, rank=4)
    weights = weights_of(representation)
    found = representation.canonical(weights)
    assert list(found) == list(weights)
    for before, after in zip(products(representation, weights), products(representation, found)):
        assert ((after - before).norm(dim=(1, 2)) <= SAME * before.norm(dim=(1, 2))).all()
    exact, coords = contracts.in_double(representation), contracts.points().double()
    values = [
        exact.evaluate({name: tensor.double() for name, tensor in each.items()}, coords) for each in (weights, found)
    ]
    assert (values[1] - values[0]).abs().max() <= SAME * values[0].abs().max()


@pytest.mark.parametrize(("kind", "form"), contracts.CASES)
def test_a_second_time_changes_nothing(kind, form):
    representation = contracts.tiny_representation(kind, form, rank=4)
    once = representation.canonical(weights_of(representation, num=64))
    again = representation.canonical(once)
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize(("kind", "form"), FREE)
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_class_has_one_form(kind, form, rank):
    """Random ``R`` leave the form as it is; another function, made by ``B`` alone, has another one."""
    representation = contracts.tiny_representation(kind, form, rank=rank)
    weights, generator = weights_of(representation), torch.Generator().manual_seed(1)
    other = moved(representation, weights, lambda pair, num: well_conditioned(generator, num, rank))
    assert max((other[name] - weights[name]).abs().max() for name in weights) > 0.1
    expected, found = representation.canonical(weights), representation.canonical(other)
    assert_close(expected, found, 2e-5)  # rounding of the moved factors, over the gaps of the singular values
    spoiled = {name: 1.5 * tensor if name.endswith("up") else tensor for name, tensor in other.items()}
    differs = representation.canonical(spoiled)
    assert max((differs[name] - expected[name]).abs().max() for name in weights) > 0.01


def test_the_form_is_balanced_ordered_and_signed():
    representation = contracts.tiny_representation("lora", rank=4)
    found = representation.canonical(weights_of(representation))
    for pair in factor_pairs(representation.layout):
        down, up = found[pair.down.name].double(), found[pair.up.name].double()
        sizes = up.square().sum(-2)
        assert (sizes[:, 1:] <= sizes[:, :-1]).all()
        for gram in (up.mT @ up, down @ down.mT):
            torch.testing.assert_close(gram, torch.diag_embed(sizes), rtol=1e-6, atol=1e-6)
        expected = torch.linalg.svdvals(up @ down)[:, :4]
        torch.testing.assert_close(sizes, expected, rtol=1e-6, atol=1e-6)
        largest = up.gather(-2, up.abs().argmax(-2, keepdim=True))
        assert (largest > 0).all()


@pytest.mark.parametrize("form", ["exp", "one_plus", "product"])
def test_a_mask_of_zeros_leaves_a_scale_and_a_sign(form):
    representation = contracts.tiny_representation("mlora_asym", form, rank=4)
    weights, generator = weights_of(representation), torch.Generator().manual_seed(2)

    def scales(pair, num):
        signs = torch.randint(0, 2, (num, 4), generator=generator) * 2 - 1
        return torch.diag_embed(signs * (0.2 + 3 * torch.rand(num, 4, generator=generator)))

    other = moved(representation, weights, scales)
    expected, found = representation.canonical(weights), representation.canonical(other)
    assert_close(expected, found, SAME)
    for pair in factor_pairs(representation.layout):
        down, up = found[pair.down.name], found[pair.up.name]
        assert (down[:, ~pair.down.trainable()] == 0).all()
        torch.testing.assert_close(down.norm(dim=-1), up.norm(dim=-2), rtol=1e-6, atol=1e-6)


def test_a_mask_of_other_numbers_leaves_nothing():
    representation = contracts.tiny_representation("lora_asym", rank=4)
    weights = weights_of(representation)
    found = representation.canonical(weights)
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("kind", "freedom"), [("mlora_asym", 4), ("lora_asym", 0)])
def test_no_other_freedom_is_left_by_a_mask_of_the_usual_size(kind, freedom):
    """Dimensions of the matrices that keep all frozen entries of ``T A`` (of their changes, about the identity)."""
    from wsrl.adapters.masks import asymmetric_mask

    generator = torch.Generator().manual_seed(0)
    trainable = asymmetric_mask(4, 64, 0.25, generator)
    values = 0.0 if kind == "mlora_asym" else torch.randn(4, 64, generator=generator)
    down = torch.where(trainable, torch.randn(4, 64, generator=generator), torch.as_tensor(values)).double()
    left = 0
    for row in range(4):  # what row i takes of all rows has to vanish where it is frozen
        left += 4 - int(torch.linalg.matrix_rank(down[:, ~trainable[row]]))
    assert left == freedom


@pytest.mark.parametrize(("kind", "form"), ADAPTERS)
def test_a_start_and_lost_dimensions_are_no_trouble(kind, form):
    """``B = 0``, a component that is zero, two that are alike: finite, the same function, and of one form."""
    representation = contracts.tiny_representation(kind, form, rank=4)
    start = {name: tensor.expand(3, *tensor.shape).clone() for name, tensor in representation.initial().items()}
    weights = weights_of(representation)
    for pair in factor_pairs(representation.layout):
        weights[pair.up.name][0, :, 1] = 0
        weights[pair.up.name][1, :, 3] = weights[pair.up.name][1, :, 2]
    for each in (start, weights):
        found = representation.canonical(each)
        assert all(tensor.isfinite().all() for tensor in found.values())
        for before, after in zip(products(representation, each), products(representation, found)):
            assert ((after - before).norm(dim=(1, 2)) <= SAME * before.norm(dim=(1, 2)) + 1e-12).all()
        again = representation.canonical(found)
        assert all(torch.equal(found[name], again[name]) for name in found)
    if kind == "lora" or (kind == "mlora" and form != "product"):
        assert not any(tensor.any() for tensor in representation.canonical(start).values())


def test_lost_dimensions_meet_in_one_form():
    representation = contracts.tiny_representation("lora", rank=4)
    weights, generator = weights_of(representation), torch.Generator().manual_seed(3)
    for pair in factor_pairs(representation.layout):
        weights[pair.up.name][:, :, 2:] = 0
    other = moved(representation, weights, lambda pair, num: well_conditioned(generator, num, 4))
    expected, found = representation.canonical(weights), representation.canonical(other)
    assert_close(expected, found, 2e-5)
    assert all((expected[pair.up.name][:, :, 2:] == 0).all() for pair in factor_pairs(representation.layout))


@pytest.mark.parametrize("shape", [(2, 8), (8, 2), (3, 3)], ids=str)
def test_more_components_than_dimensions(shape):
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(5, 4, shape[1], generator=generator), torch.randn(5, shape[0], 4, generator=generator)
    new_down, new_up = canonical_factors(down, up)
    assert new_down.shape == down.shape and new_up.shape == up.shape
    torch.testing.assert_close(new_up @ new_down, up @ down, rtol=0, atol=5e-6)
    assert (new_up[..., min(shape) :] == 0).all() and (new_down[:, min(shape) :] == 0).all()


@pytest.mark.parametrize("kind", ["lora", "mlora_asym"])
def test_a_field_is_the_same_in_any_company(kind):
    """Alone, in a batch, without a batch axis, and beside a field that is not finite, which stays as it is."""
    representation = contracts.tiny_representation(kind, rank=4)
    weights = weights_of(representation)
    together = representation.canonical(weights)
    alone = representation.canonical({name: tensor[2:3] for name, tensor in weights.items()})
    single = representation.canonical({name: tensor[2] for name, tensor in weights.items()})
    spoiled = {name: tensor.clone() for name, tensor in weights.items()}
    for pair in factor_pairs(representation.layout):
        spoiled[pair.up.name][4, 0, 0] = torch.nan
    beside = representation.canonical(spoiled)
    for name, tensor in together.items():
        torch.testing.assert_close(alone[name][0], tensor[2], rtol=0, atol=SAME)
        torch.testing.assert_close(single[name], tensor[2], rtol=0, atol=SAME)
        torch.testing.assert_close(beside[name][:4], tensor[:4], rtol=0, atol=SAME)
        torch.testing.assert_close(beside[name][4], spoiled[name][4], rtol=0, atol=0, equal_nan=True)


def test_float64_is_kept_and_more_exact():
    representation = contracts.tiny_representation("mlora", rank=3)
    weights = {name: tensor.double() for name, tensor in weights_of(representation).items()}
    found = representation.canonical(weights)
    assert all(tensor.dtype == torch.float64 for tensor in found.values())
    for before, after in zip(products(representation, weights), products(representation, found)):
        assert ((after - before).norm(dim=(1, 2)) <= 1e-14 * before.norm(dim=(1, 2))).all()


def test_a_gauge_of_fields_without_factors_is_refused():
    standalone, adapter = (contracts.tiny_representation(kind).layout for kind in ("mlp", "lora"))
    check_gauge("raw", standalone)
    check_gauge("canonical", adapter)
    with pytest.raises(UserError, match=r"data.gauge is 'canonical'.*without factors.*raw.*wsrl align"):
        check_gauge("canonical", standalone, "data.gauge")
    with pytest.raises(UserError, match=r"gauge is 'balanced'.*raw, canonical"):
        check_gauge("balanced", adapter)
