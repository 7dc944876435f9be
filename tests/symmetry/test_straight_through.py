"""Straight-through refinement: it starts from weight matching and only gets better half way between the networks."""

import pytest
import torch
from symmetry_networks import mlp, noise
from torch import nn
from torch.nn import functional

from wsrl.symmetry.matching.barriers import NetworkScores, interpolate
from wsrl.symmetry.matching.matching import agreement, match_weights
from wsrl.symmetry.matching.straight_through import RefinementOptions, refine_straight_through
from wsrl.symmetry.spec.spec import PermutationSpec


def trained(make, seed: int, x, y) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def midpoint_loss(net, first, second, x, y) -> float:
    return NetworkScores(net, x, y)(interpolate(first, second, 0.5))[0]


def plain() -> nn.Module:
    return mlp(4, 12, 12, 3, activation=nn.ReLU)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


@pytest.mark.parametrize("make", [plain, normalised])
def test_the_loss_half_way_falls_from_that_of_weight_matching(make):
    x = noise(200, 4)
    y = ((x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()) % 3
    first, second = (trained(make, seed, x, y) for seed in (0, 1))
    net = make()
    spec = PermutationSpec.from_module(net, x[:2])
    options = RefinementOptions(num_steps=16, batch_size=100, learning_rate=0.03, check_every=2)
    refinement = refine_straight_through(spec, net, first, second, x, y, options=options)
    aligned = spec.apply(second, refinement.permutation)
    matched = spec.apply(second, match_weights(spec, first, second).permutation)
    assert refinement.losses[0] == pytest.approx(midpoint_loss(net, first, matched, x, y))
    assert refinement.losses[-1] == pytest.approx(midpoint_loss(net, first, aligned, x, y))
    assert list(refinement.losses) == sorted(refinement.losses, reverse=True) and len(refinement.losses) == 9
    assert refinement.losses[-1] < refinement.losses[0] < midpoint_loss(net, first, second, x, y)
    assert refinement.objective == pytest.approx(agreement(spec, first, aligned))
    assert refinement.history[-1] == pytest.approx(agreement(spec, first, matched))
    with torch.no_grad():
        net.load_state_dict(second)
        before = net.eval()(x)
        net.load_state_dict(aligned)
        assert torch.allclose(net(x), before, atol=1e-5)


def test_a_copy_needs_no_refinement():
    x, y, net = noise(50, 4), torch.arange(50) % 3, plain()
    weights = trained(plain, 0, x, y)
    spec = PermutationSpec.from_module(net, x[:2])
    copied = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(0)))
    options = RefinementOptions(num_steps=2, batch_size=10)
    refinement = refine_straight_through(spec, net, weights, copied, x, y, options=options)
    back = spec.apply(copied, refinement.permutation)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
