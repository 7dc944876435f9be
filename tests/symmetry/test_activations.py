"""Activation matching: copies are found by what their units do, whatever their weights look like."""

import pytest
import torch
from symmetry_networks import BasicBlock, ResNet, attention_by_hand, inferred_spec, mlp, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.matching.activations import Readout, find_readouts, match_activations
from wsrl.symmetry.spec.spec import PermutationSpec


@pytest.fixture(autouse=True)
def same_start():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def normed() -> nn.Module:
    layers = [nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, 3))


CASES = {
    "mlp": (lambda: mlp(5, 16, 16, 3, activation=nn.ReLU), noise(64, 5)),
    "convolutions": (normed, noise(40, 2, 7, 7)),
    "residual": (lambda: ResNet(8, [[BasicBlock(8, 8, 1)]], 8), noise(24, 3, 8, 8)),
    "attention": (lambda: attention_by_hand(8, 2, 4, 3), noise(64, 4, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_permuted_copy_is_recovered(name):
    make, inputs = CASES[name]
    net = make()
    spec = PermutationSpec.from_module(net, inputs[:2])
    weights = dict(net.state_dict())
    copied = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(1)))
    matching = match_activations(spec, net, weights, copied, inputs)
    back = spec.apply(copied, matching.permutation)
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    assert not all(torch.equal(copied[key], weights[key]) for key in weights)


def test_units_are_known_by_what_they_do():
    net, inputs = CASES["mlp"][0](), CASES["mlp"][1]
    spec, weights = PermutationSpec.from_module(net, inputs[:2]), dict(net.state_dict())
    strength = torch.rand(16, generator=torch.Generator().manual_seed(0)) * 10 + 0.01
    same = weights | {
        "0.weight": weights["0.weight"] * strength[:, None],
        "0.bias": weights["0.bias"] * strength,
        "2.weight": weights["2.weight"] / strength,
    }
    permutation = spec.random_permutation(torch.Generator().manual_seed(1))
    is_recovered = match_activations(spec, net, weights, spec.apply(same, permutation), inputs).permutation
    assert all(torch.equal(is_recovered[n], table) for n, table in spec.invert(permutation).items())


def test_the_objective_counts_correlations():
    net, inputs = CASES["mlp"][0](), CASES["mlp"][1]
    spec, weights = PermutationSpec.from_module(net, inputs[:2]), dict(net.state_dict())
    alive = sum(int((net[:k](inputs).detach().std(0) > 0).sum()) for k in (2, 4))
    assert match_activations(spec, net, weights, weights, inputs).objective == pytest.approx(alive, rel=1e-5)
    other = dict(CASES["mlp"][0]().state_dict())
    assert match_activations(spec, net, weights, other, inputs).objective < 0.95 * alive


def test_places_may_be_given():
    net, inputs = CASES["mlp"][0](), CASES["mlp"][1]
    spec, weights = PermutationSpec.from_module(net, inputs[:2]), dict(net.state_dict())
    name = spec.permutations[0]
    copied = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(1)))
    readouts = {name: [Readout("0"), Readout("1", dim=1)]}
    back = spec.apply(copied, match_activations(spec, net, weights, copied, inputs, readouts=readouts).permutation)
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    for wrong, text in ((Readout("9"), "output of '9'"), (Readout("0", "inside"), "inside of '0'")):
        with pytest.raises(UserError, match=text):
            match_activations(spec, net, weights, copied, inputs, readouts={name: wrong})
    with pytest.raises(UserError, match="readouts speaks of 'x'"):
        match_activations(spec, net, weights, copied, inputs, readouts={"x": Readout("0")})


def test_what_no_layer_shows_is_matched_by_weights():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    net, inputs = nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 2)), noise(32, 5, 3)
    spec = inferred_spec(net, inputs[:2])
    shown = {name for _, axis in find_readouts(spec, net) for name in spec.permutations if name in str(axis)}
    assert shown < set(spec.permutations)
    weights = dict(net.state_dict())
    copied = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(1)))
    with torch.no_grad():
        back = spec.apply(copied, match_activations(spec, net.eval(), weights, copied, inputs).permutation)
    assert all(torch.equal(back[key], weights[key]) for key in weights)
