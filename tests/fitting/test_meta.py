"""Learned starts: what a few gradient steps from them come to."""

from dataclasses import replace

import pytest
import torch

from tests.contracts import points, tiny_base, tiny_representation
from wsrl.errors import UserError
from wsrl.fields.latent import LatentRepresentation
from wsrl.fitting.meta import MetaConfig, MetaStart, learn_start

COORDS = points(32)
LONG = 1e3


def waves(num, seed):
    """Values ``(num, P, 1)`` of waves of one direction that differ in height and phase."""
    height, phase = torch.rand(2, num, 1, generator=torch.Generator().manual_seed(seed))
    return ((0.5 + height) * torch.sin(3 * COORDS[:, 0] + phase)).unsqueeze(-1)


def error_after(start, values):
    found = start.representation.evaluate(start.representation.layout.unflatten(start.fit(COORDS, values)), COORDS)
    return float((found - values).square().mean())


def plain(representation, rate, steps):
    """Gradient steps of one size from the shared start."""
    start = representation.layout.flatten(representation.initial())
    rates = rate * representation.layout.trainable().float()
    return MetaStart(representation=representation, start=start, rates=rates, steps=steps, longest=LONG)


def test_the_steps_are_those_of_torch_each_field_on_its_own():
    representation, values = tiny_representation("mlora_asym"), waves(3, 0)
    found = plain(representation, 0.5, 2).fit(COORDS, values)
    layout = representation.layout
    for row in range(3):
        numbers = layout.flatten(representation.initial()).clone().requires_grad_()
        optimizer = torch.optim.SGD([numbers], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            field = representation.evaluate(layout.unflatten(numbers[None]), COORDS)
            (field - values[row : row + 1]).square().mean().backward()
            numbers.grad[~layout.trainable()] = 0
            optimizer.step()
        torch.testing.assert_close(found[row], numbers.detach())


def test_long_steps_are_shortened_and_only_they():
    values, size = waves(3, 0), 0.01
    values[1:] *= 1e-3  # not long: almost nothing to be learned
    values[1:] += tiny_representation("mlora").base.trunk(COORDS)
    free = plain(tiny_representation("mlora"), 5.0, 1)
    moved = [start.fit(COORDS, values) - start.start for start in (free, replace(free, longest=size))]
    assert moved[0][0].square().mean().sqrt() > 2 * size > 2 * moved[0][1:].square().mean(1).sqrt().max()
    torch.testing.assert_close(moved[1][0].square().mean().sqrt(), torch.tensor(size))
    torch.testing.assert_close(moved[1][0], moved[0][0] * size / moved[0][0].square().mean().sqrt())
    assert torch.equal(moved[1][1:], moved[0][1:])


@pytest.mark.parametrize("kind", ["mlora_asym", "mlp"])
def test_a_learned_start_is_better_on_signals_that_it_has_not_seen(kind):
    representation = tiny_representation(kind)
    config = MetaConfig(inner_steps=2, steps=60, batch_size=8, inner_rate=0.1, learning_rate=0.02)
    learned = learn_start(representation, COORDS, waves(64, 1), config)
    unseen = waves(16, 2)
    best = min(error_after(plain(representation, rate, 2), unseen) for rate in (0.03, 0.1, 0.3))
    assert error_after(learned, unseen) < 0.5 * best


def test_frozen_entries_stay_and_rates_become_each_weights_own():
    representation = tiny_representation("mlora_asym")
    free, start = representation.layout.trainable(), representation.layout.flatten(representation.initial())
    config = MetaConfig(inner_steps=2, steps=5, batch_size=4, inner_rate=0.1, interleave=2)
    learned = learn_start(representation, COORDS, waves(8, 1), config)
    assert torch.equal(learned.start[~free], start[~free]) and not learned.rates[~free].any()
    assert (learned.start[free] != start[free]).float().mean() > 0.9
    assert len(learned.rates[free].unique()) > 0.5 * int(free.sum())
    again = learn_start(representation, COORDS, waves(8, 1), config)
    assert torch.equal(again.start, learned.start) and torch.equal(again.rates, learned.rates)


def test_a_latent_learns_a_start():
    representation = LatentRepresentation(tiny_base().requires_grad_(False))
    config = MetaConfig(inner_steps=2, steps=40, batch_size=8, inner_rate=0.1, learning_rate=0.05)
    learned = learn_start(representation, COORDS, waves(64, 1), config)
    assert error_after(learned, waves(16, 2)) < error_after(plain(representation, 0.1, 2), waves(16, 2))


def test_the_gradient_goes_through_the_inner_steps():
    representation, values = tiny_representation("mlora"), waves(2, 0)
    start = representation.layout.flatten(representation.initial()).double().requires_grad_()
    start.data += 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    representation.base.double()
    learned = MetaStart(
        representation=representation, start=start, rates=torch.full_like(start, 2.0), steps=2, longest=0.1
    )

    def moved(start):
        return replace(learned, start=start).fit(COORDS.double(), values.double(), keep_graph=True)

    assert torch.autograd.gradcheck(moved, (start,), fast_mode=True)
    identity = torch.autograd.grad(moved(start)[0].sum(), start)[0]
    assert not torch.allclose(identity, torch.ones_like(identity), atol=1e-3)  # what a first-order gradient would be


def test_a_start_that_diverges_ends_in_a_message():
    config = MetaConfig(inner_steps=3, steps=5, batch_size=4, learning_rate=1e12)
    with pytest.raises(UserError, match=r"lower meta\.learning_rate"):
        learn_start(tiny_representation("mlora"), COORDS, waves(8, 1), config)


def test_a_wrong_option_is_refused():
    with pytest.raises(UserError, match="inner_steps"):
        MetaConfig(inner_steps=0)
