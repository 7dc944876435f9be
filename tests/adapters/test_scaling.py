"""The multiplicative forms: formulas against brute force, gradients, batches, and starts at the base weight."""

import math

import pytest
import torch

from wsrl.adapters.masks import asymmetric_mask
from wsrl.adapters.scaling import FORMS, scale_weight, start_factors
from wsrl.errors import UserError

SCALES = {"exp": math.exp, "one_plus": lambda s: 1 + s, "product": lambda s: s}


def random_factors(*batch, rank=3, num_in=5, num_out=4):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(num_out, num_in), draw(*batch, rank, num_in), draw(*batch, num_out, rank)


@pytest.mark.parametrize("form", FORMS)
def test_formula_entry_by_entry(form):
    base, down, up = random_factors()
    scaled = scale_weight(base, down, up, form)
    for i in range(4):
        for j in range(5):
            factor = sum(float(up[i, k] * down[k, j]) for k in range(3))
            assert float(scaled[i, j]) == pytest.approx(float(base[i, j]) * SCALES[form](factor), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    base, down, up = (tensor.requires_grad_() for tensor in random_factors(2))
    assert torch.autograd.gradcheck(lambda *args: scale_weight(*args, form), (base, down, up))


@pytest.mark.parametrize("form", FORMS)
def test_batch_equals_one_at_a_time(form):
    base, down, up = random_factors(2, 3)
    batched = scale_weight(base, down, up, form)
    assert batched.shape == (2, 3, 4, 5)
    one = scale_weight(base, down[1, 2], up[1, 2], form)
    torch.testing.assert_close(batched[1, 2], one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank,fraction", [(1, 0.0), (4, 0.0), (4, 0.5), (4, 0.75)])
def test_start_is_the_base_weight(form, rank, fraction):
    generator = torch.Generator().manual_seed(0)
    mask = asymmetric_mask(rank, 16, fraction, generator)
    down, up = start_factors(16, 6, rank, form, mask, 0.5, generator)
    base = torch.randn(6, 16, generator=generator)
    torch.testing.assert_close(scale_weight(base, down, up, form), base, rtol=1e-6, atol=0)
    assert (down[~mask] == 0).all() and (down[mask] != 0).all()
    moved = scale_weight(base, down, up + 0.1, form)
    assert not torch.allclose(moved, base, rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_rank_components_start_apart(form):
    down, _ = start_factors(16, 6, 2, form, None, 0.1, torch.Generator().manual_seed(0))
    assert not torch.allclose(down[0], down[1])


def test_start_is_the_generator_s():
    first, again, other = (
        start_factors(8, 4, 2, "exp", None, 0.5, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_unknown_form_is_refused():
    base, down, up = random_factors()
    with pytest.raises(UserError, match=r"form is 'sum'\. Allowed: exp, one_plus, product"):
        scale_weight(base, down, up, "sum")
    with pytest.raises(UserError, match=r"form is .*Allowed: exp, one_plus, product, add"):
        start_factors(2, 2, 1, "sum", None, 0.1, None)
