"""Networks over weights: equivariant or invariant to 1e-5 in float32, and to nothing that is no symmetry."""

import pytest
import torch
from unf_specs import CASES, features, move, one_axis_alone, permutation, plain_spec, spec_of

from wsrl.errors import UserError
from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.functionals import EquivariantNetwork, EquivariantStack, InvariantNetwork, InvariantPool, UnfConfig

TOLERANCE = 1e-5
CONFIGS = [
    UnfConfig(channels=16, depth=3),
    UnfConfig(channels=16, depth=2, activation="relu", norm=False, num_frequencies=2),
]


def relative(actual, expected):
    return float(((actual - expected).abs().max() / expected.abs().max().clamp_min(1.0)).detach())


@pytest.mark.parametrize("config", CONFIGS, ids=["gated", "relu"])
@pytest.mark.parametrize("case", CASES)
def test_weights_to_weights_is_equivariant(case, config):
    spec = plain_spec(case)
    network = EquivariantNetwork(spec_of(case), config, 2, 3)
    values, moves = features(spec, 2, dtype=torch.float32), permutation(spec)
    before, after = move(spec, network(values), moves), network(move(spec, values, moves))
    assert {n: v.shape for n, v in after.items()} == {n: (2, *s, 3) for n, s in spec.shapes.items()}
    assert max(relative(after[n], before[n]) for n in before) < TOLERANCE
    assert all(v.std() > 1e-4 for v in after.values() if v.numel() > 8)


@pytest.mark.parametrize("config", CONFIGS, ids=["gated", "relu"])
@pytest.mark.parametrize("case", CASES)
def test_weights_to_features_is_invariant_and_notices_what_is_no_symmetry(case, config):
    spec = plain_spec(case)
    network = InvariantNetwork(spec_of(case), config, 2, 5).eval()
    values, moves = features(spec, 2, dtype=torch.float32), permutation(spec, seed=3)
    before, after = network(values), network(move(spec, values, moves))
    assert before.shape == (2, 5)
    assert relative(after, before) < TOLERANCE
    for name, axes in spec.axes.items():
        for index, axis in enumerate(axes):
            tied = sum(other == axis for all_axes in spec.axes.values() for other in all_axes)
            if axis is not None and tied > 1:
                broken = network(one_axis_alone(values, name, index))
                assert relative(broken, before) > 10 * TOLERANCE, (name, index)


def test_pooling_takes_every_invariant_term():
    network = InvariantNetwork(spec_of("recurrent"), UnfConfig(channels=4, depth=1))
    pool = network.pool
    # (a, a): all entries and the diagonal; (a, fixed 2): two; (a,): one; each times four channels.
    assert pool.num_features == (2 + 2 + 1) * 4
    assert isinstance(pool, InvariantPool)


def perceptron():
    layers = [torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)]
    return torch.nn.Sequential(*layers), torch.randn(2, 3)


def convolutional():
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, groups=2)]
    layers += [torch.nn.GroupNorm(2, 6), torch.nn.Flatten(), torch.nn.Linear(6 * 4, 3)]
    return torch.nn.Sequential(*layers), torch.randn(2, 1, 6, 6)


def attentive():
    block = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), block, torch.nn.Linear(8, 2)), torch.randn(2, 4, 3)


def recurrent():
    return torch.nn.GRU(3, 5), torch.randn(4, 2, 3)


@pytest.mark.parametrize("make", [perceptron, convolutional, attentive, recurrent])
def test_networks_read_any_module_whose_permutations_are_inferred(make):
    module, inputs = make()
    spec = PermutationSpec.from_module(module.eval(), inputs)
    generator = torch.Generator().manual_seed(0)
    tensors = {n: t for n, t in module.state_dict().items() if n in spec.axes}
    weights = {n: torch.randn(2, *t.shape, generator=generator) for n, t in tensors.items()}
    permutation = spec.random_permutation(generator)
    before, moved = (
        {n: w[..., None] for n, w in group.items()} for group in (weights, spec.apply(weights, permutation))
    )
    config = UnfConfig(channels=16, depth=2)
    invariant = InvariantNetwork(spec, config, 1, 4).eval()
    assert relative(invariant(moved), invariant(before)) < TOLERANCE
    equivariant = EquivariantNetwork(spec, config)
    expected = spec.apply({n: v[..., 0].detach() for n, v in equivariant(before).items()}, permutation)
    outputs = {n: v[..., 0].detach() for n, v in equivariant(moved).items()}
    assert max(relative(outputs[n], expected[n]) for n in expected) < TOLERANCE
    shuffled = {n: v.flatten(1).roll(1, 1).reshape(v.shape) for n, v in before.items()}
    assert relative(invariant(shuffled), invariant(before)) > 10 * TOLERANCE


@pytest.mark.parametrize("width", [8, 64, 512])
def test_the_start_keeps_variance_at_any_width_and_depth(width):
    axes, _ = CASES["mlp"]
    sizes = {"a": width, "b": width}
    shapes = {n: tuple(sizes.get(axis, 2) for axis in a) for n, a in axes.items()}
    stack = EquivariantStack(PlainSpec(axes, shapes), UnfConfig(channels=16, depth=6), 1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        out = stack({n: torch.randn(1, *s, 1, generator=generator) for n, s in shapes.items()})
    for name, tensor in out.items():
        assert 0.2 < tensor.square().mean() < 20, name


def test_gradients_reach_every_parameter():
    spec = plain_spec("mlp")
    network = EquivariantNetwork(spec_of("mlp"), UnfConfig(channels=16, depth=2), 1, 1)
    sum(v.square().sum() for v in network(features(spec, 1, dtype=torch.float32)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_same_seed_gives_the_same_network():
    first, second = (InvariantNetwork(spec_of("mlp"), UnfConfig(seed=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.stack.parameters(), second.stack.parameters()))
    third = InvariantNetwork(spec_of("mlp"), UnfConfig(seed=4))
    assert not torch.equal(next(first.stack.parameters()), next(third.stack.parameters()))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"depth": 0}, {"activation": "tanh"}, {"dropout": 1.0}])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        UnfConfig(**wrong)
