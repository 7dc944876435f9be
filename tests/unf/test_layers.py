"""Equivariant layers commute with permutations, hold every term of the basis, and keep variance at any width."""

import pytest
import torch
from unf_specs import CASES, apply_term, features, move, permutation, plain_spec

from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.unf import native
from wsrl.unf.basis import terms
from wsrl.unf.fused import fused_mix
from wsrl.unf.layers import EquivariantLinear
from wsrl.unf.nonlinearity import GATED, LINEAR, RELU, Nonlinearity
from wsrl.unf.pooling import PooledTensor
from wsrl.unf.term_maps import HubMap

TOLERANCE = 1e-10
NONLINEARITIES = {"linear": LINEAR, "relu": RELU, "gated": GATED}


def randomised(layer, seed=0):
    """The layer with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in layer.bias:
            bias.copy_(torch.randn(bias.shape, generator=generator))
    return layer


def make(spec, channels_in, channels_out, nonlinearity=LINEAR):
    generator = torch.Generator().manual_seed(0)
    layer = EquivariantLinear(spec, channels_in, channels_out, nonlinearity=nonlinearity, generator=generator)
    return randomised(layer.double())


@pytest.mark.parametrize("kind", NONLINEARITIES)
@pytest.mark.parametrize("case", CASES)
def test_layers_commute_with_permutations(case, kind):
    spec = plain_spec(case)
    layer, values = make(spec, 3, 4, NONLINEARITIES[kind]), features(spec, 3)
    moves = permutation(spec)
    before, after = move(spec, layer(values), moves), layer(move(spec, values, moves))
    for name, shape in spec.shapes.items():
        assert after[name].shape == (2, *shape, 4)
        assert torch.allclose(after[name], before[name], atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_layers_do_not_commute_with_what_is_no_symmetry(case):
    """The control: an axis that moves without those it is tied to."""
    spec = plain_spec(case)
    layer, values = make(spec, 3, 4), features(spec, 3)
    name, axis = next((n, i) for n, axes in spec.axes.items() for i, axis in enumerate(axes) if axis)
    moves = permutation(spec, seed=1)
    broken = {**values, name: values[name].index_select(axis + 1, moves[spec.axes[name][axis]])}
    before, after = layer(values), layer(broken)
    undone = {**after, name: after[name].index_select(axis + 1, moves[spec.axes[name][axis]].argsort())}
    assert any((undone[n] - before[n]).abs().max() > 1e-3 for n in before)


def entries(layer):
    """Every number of the layer's matrices, as the parameter and the place in it."""
    weights = [p for n, p in layer.named_parameters() if not n.startswith("bias")]
    return [(p, index) for p in weights for index in range(p.numel())]


@torch.no_grad()
def response(layer, values, parameter, index):
    """What the layer gives where one of its numbers is one and all others are zero, in one vector."""
    for other in layer.parameters():
        other.zero_()
    parameter.view(-1)[index] = 1
    return torch.cat([v.flatten() for v in layer(values).values()])


@pytest.mark.parametrize("case", ["mlp", "recurrent", "three"])
def test_a_layer_spans_the_basis(case):
    """As many independent maps as the basis has terms: what the layer gives with one of its weights at a time."""
    axes, _ = CASES[case]
    axes = {n: tuple(axis for axis in a if axis) for n, a in axes.items()}  # fixed axes are counted elsewhere
    sizes = {"a": 6, "b": 5} if case != "three" else {"a": 7, "b": 5}
    spec = PlainSpec(axes, {n: tuple(sizes[axis] for axis in a) for n, a in axes.items()})
    layer, values = make(spec, 1, 1), features(spec, 1, num=60)
    rows = [response(layer, values, *entry) for entry in entries(layer)]
    rows = torch.stack(rows)
    expected = sum(len(terms(out, into)) for out in axes.values() for into in axes.values())
    assert torch.linalg.matrix_rank(rows) == expected


def test_a_layer_is_a_sum_of_terms():
    """Set the weights of one layer by hand from the terms of the plain basis."""
    spec = PlainSpec({"m": ("a", "b")}, {"m": (4, 5)})
    layer, values = make(spec, 2, 3), features(spec, 2)
    with torch.no_grad():
        layer.bias[0].zero_()
        expected = torch.zeros(2, 4, 5, 3, dtype=torch.float64)
        for meeting, maps in zip(layer.meetings, layer.maps):
            (target,), (source,) = meeting.targets, meeting.sources
            weight = maps.weight[0] if meeting.is_large else maps.weight
            expected += apply_term((target.pattern, source.pattern), values["m"], (4, 5)) @ weight
    assert torch.allclose(layer(values)["m"], expected, atol=TOLERANCE)


def mlp_spec(width):
    return PlainSpec(
        {"w0": ("a", None), "b0": ("a",), "w1": ("b", "a"), "b1": ("b",), "w2": (None, "b"), "b2": (None,)},
        {"w0": (width, 2), "b0": (width,), "w1": (width, width), "b1": (width,), "w2": (3, width), "b2": (3,)},
    )


@pytest.mark.parametrize("width", [8, 64, 512])
def test_the_start_keeps_variance_at_any_width(width):
    spec = mlp_spec(width)
    generator = torch.Generator().manual_seed(0)
    values = {n: torch.randn(1, *s, 16, generator=generator) for n, s in spec.shapes.items()}
    for _ in range(4):
        layer = EquivariantLinear(spec, 16, 16, nonlinearity=RELU, generator=generator)
        with torch.no_grad():
            values = layer(values)
    for name, tensor in values.items():
        # Second moments after four layers; entries of a small tensor are few and correlated.
        assert 0.1 < tensor.square().mean() < 12, name


def test_tensors_that_meet_in_means_alone_cost_linearly():
    def cost(num):
        axes = {f"b{i}": ("a",) for i in range(num)}
        layer = EquivariantLinear(PlainSpec(axes, dict.fromkeys(axes, (3,))), 4, 4)
        return sum(parameter.numel() for parameter in layer.parameters()), layer

    small, large = cost(100), cost(400)
    assert any(isinstance(maps, HubMap) for maps in small[1].maps)
    assert large[0] < 4.1 * small[0]
    spec = large[1].spec
    values, moves = features(spec, 4, dtype=torch.float32), permutation(spec)
    before, after = move(spec, large[1](values), moves), large[1](move(spec, values, moves))
    assert all(torch.allclose(before[n], after[n], atol=1e-5) for n in before)


def test_every_position_of_a_kernel_has_its_own_bias():
    spec = plain_spec("conv")
    layer = EquivariantLinear(spec, 1, 1)
    assert layer.bias[list(layer.tensors).index("k")].shape == (1, 1, 9, 1)
    layer = randomised(layer)
    out = layer({n: torch.ones(1, *s, 1) for n, s in spec.shapes.items()})["k"]
    assert out.shape == (1, 4, 3, 3, 3, 1)
    assert out[0, 0, 0].std() > 1e-3
    assert torch.allclose(out, out[:, :1, :1].expand_as(out))


def test_means_are_computed_once(monkeypatch):
    spec, calls = plain_spec("mlp"), []
    layer = make(spec, 2, 2)
    mean = torch.Tensor.mean
    monkeypatch.setattr(torch.Tensor, "mean", lambda self, *a, **k: calls.append(self.shape) or mean(self, *a, **k))
    layer(features(spec, 2))
    # k inner axes have 2^k - 1 means: w0 beside b0 1, w1 3, b1 beside w2 1, b2 0.
    assert len(calls) == 5


@pytest.mark.skipif(bool(native.load()[1]), reason=f"no kernel here: {native.load()[1]}")
@pytest.mark.parametrize("nonlinearity", [RELU, LINEAR, GATED, Nonlinearity(0.2)])
@pytest.mark.parametrize(
    "shape", [(3, 5, 7, 1, 16, 16), (1, 6, 5, 3, 3, 32), (2, 4, 61, 9, 16, 48), (1, 1, 3, 1, 5, 16)]
)
@pytest.mark.parametrize("own_weights", [False, True])
def test_the_kernel_agrees_with_torch(shape, nonlinearity, own_weights):
    num, p, q, f, c, d = shape
    last = (f,) if f > 1 else ()
    e, generator = d * nonlinearity.channels_per_output, torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator).requires_grad_()

    arguments = {
        "values": draw(num, p, q, *last, c),
        "weight": draw(*((num,) if own_weights else ()), c, e),
        "by_pf": draw(num, p, *last, e),
        "by_qf": draw(num, q, *last, e),
        "by_pq": draw(num, p, q, e) if f > 1 else None,
    }
    mixed = fused_mix(**arguments, nonlinearity=nonlinearity)
    exact = {name: None if t is None else t.double() for name, t in arguments.items()}
    weight = exact["weight"].reshape(-1, *(1,) * len((p, *last)), c, e) if own_weights else exact["weight"]
    out = exact["values"] @ weight + exact["by_pf"][:, :, None] + exact["by_qf"][:, None]
    out = nonlinearity(out if f == 1 else out + exact["by_pq"][:, :, :, None])
    expected = (out, out.mean(2), out.mean(1), out.mean(3) if f > 1 else None, out.square().flatten(1, -2).mean(1))
    leaves = [t for t in arguments.values() if t is not None]
    factors = [None if t is None else torch.randn(t.shape, generator=generator) for t in expected]
    loss = sum((a * b).sum() for a, b in zip(mixed, factors) if b is not None)
    exact_loss = sum((a * b).sum() for a, b in zip(expected, factors) if b is not None)
    pairs = [(a, b) for a, b in zip(mixed, expected) if b is not None]
    pairs += list(zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(exact_loss, leaves)))
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max().clamp_min(1.0)


def test_means_of_scaled_features():
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([[1.0, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    tensor = PooledTensor(values).scaled(scale)
    expected = values * scale[:, None, None]
    assert torch.equal(tensor.values, expected)
    assert torch.allclose(tensor.mean(frozenset({1})), expected.mean(1))
    first, second = tensor.factors(torch.eye(5))
    assert torch.allclose(first.flatten(1, 2) @ second, expected.flatten(1, 2))
