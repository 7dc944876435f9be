"""Weight matching: permuted copies are found exactly, the objective is what it says it is, and it only grows."""

from itertools import permutations, product
from types import SimpleNamespace

import pytest
import torch
from symmetry_networks import BasicBlock, Computed, ResNet, composite_spec, mlp, noise
from torch import nn
from torch.nn import functional as F

from wsrl.errors import UserError
from wsrl.symmetry.matching.assignment import best_assignment
from wsrl.symmetry.matching.matching import agreement, match_weights
from wsrl.symmetry.spec.spec import PermutationSpec


class Residual(nn.Module):
    """Blocks that add to a stream: one layer wide, or with a hidden layer; with a norm or none."""

    def __init__(self, width: int, hidden: int | None, norm: type[nn.Module] | None, num_blocks: int = 3):
        super().__init__()
        self.stem, self.out = nn.Linear(6, width), nn.Linear(width, 4)
        self.norms = nn.ModuleList(norm(width) if norm else nn.Identity() for _ in range(num_blocks))
        self.first = nn.ModuleList(nn.Linear(width, hidden or width) for _ in range(num_blocks))
        self.second = nn.ModuleList(nn.Linear(hidden, width) if hidden else nn.Identity() for _ in range(num_blocks))

    def forward(self, x):
        x = self.stem(x)
        for norm, first, second in zip(self.norms, self.first, self.second):
            x = x + second(F.relu(first(norm(x))))
        return self.out(x)


class Recurrent(nn.Module):
    """A GRU and a linear layer."""

    def __init__(self, width: int):
        super().__init__()
        self.cells, self.out = nn.GRU(5, width, 2, batch_first=True), nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.cells(x)[0])


def grouped() -> nn.Module:
    """Convolutions with group norms: channels within groups."""
    layers = [nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.GroupNorm(2, 16)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4, 3))


def transformer() -> nn.Module:
    """Two encoder layers with heads, and an embedding."""
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(7, 16), encoder, nn.Linear(16, 3))


def image(size: int = 8) -> torch.Tensor:
    return noise(2, 3, size, size)


NETWORKS = {
    "mlp": (lambda: mlp(6, 32, 32, 32, 4, activation=nn.ReLU), noise(2, 6)),
    "one layer residual": (lambda: Residual(32, None, None), noise(2, 6)),
    "residual batch norm": (lambda: Residual(32, 40, nn.BatchNorm1d), noise(2, 6)),
    "residual layer norm": (lambda: Residual(32, 40, nn.LayerNorm), noise(2, 6)),
    "residual convolutions": (lambda: ResNet(32, [[BasicBlock(32, 32, 1) for _ in range(2)]], 32), image()),
    "groups": (grouped, image(6)),
    "gru": (lambda: Recurrent(16), noise(2, 4, 5)),
    "transformer": (transformer, torch.arange(6)[None]),
}
SPEC = composite_spec(9, 3, 4)


def made(make, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(make().state_dict())


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def recovers(spec: PermutationSpec, weights: dict, seed: int) -> bool:
    """Whether a permuted copy is moved back, bit for bit; the copy is another one, or nothing is shown."""
    generator = torch.Generator().manual_seed(seed)
    copied = spec.apply(weights, spec.random_permutation(generator))
    assert not same(copied, weights)
    return same(spec.apply(copied, match_weights(spec, weights, copied, generator=generator).permutation), weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_copy_is_recovered(name):
    make, inputs = NETWORKS[name]
    spec = PermutationSpec.from_module(make(), inputs)
    assert spec.permutations
    assert all(recovers(spec, made(make, seed), seed) for seed in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS][:5])
def test_a_hundred_of_a_hundred_copies_are_recovered(name):
    make, inputs = NETWORKS[name]
    spec = PermutationSpec.from_module(make(), inputs)
    assert sum(recovers(spec, made(make, seed), seed) for seed in range(100)) == 100


def test_composite_axes_and_permutations_within_others_are_recovered():
    weights = {name: noise(*shape) for name, shape in SPEC.shapes.items()}
    assert all(recovers(SPEC, weights, seed) for seed in range(5))


def test_a_noisy_copy_is_recovered():
    make, inputs = NETWORKS["residual batch norm"]
    spec, weights = PermutationSpec.from_module(make(), inputs), made(make, 0)
    permutation = spec.random_permutation(torch.Generator().manual_seed(1))
    near = {name: t + 0.02 * noise(*t.shape) if t.is_floating_point() else t for name, t in weights.items()}
    recovered = match_weights(spec, weights, spec.apply(near, permutation)).permutation
    assert all(torch.equal(recovered[name], table) for name, table in spec.invert(permutation).items())


def test_the_best_of_all_permutations_is_found():
    spec = PermutationSpec({"a": ("p", None), "b": ("q", "p"), "c": (None, "q")}, {"p": 4, "q": 3}, {}, SHAPES)
    first = {name: noise(*shape) for name, shape in SHAPES.items()}
    second = {name: noise(*shape).flip(0) for name, shape in SHAPES.items()}
    tables = [map(torch.tensor, permutations(range(size))) for size in (4, 3)]
    best = max(agreement(spec, first, spec.apply(second, {"p": p, "q": q})) for p, q in product(*tables))
    matching = match_weights(spec, first, second, restarts=8)
    assert matching.objective == pytest.approx(best)
    assert agreement(spec, first, second) < best


SHAPES = {"a": (4, 2), "b": (3, 4), "c": (2, 3)}


def independent():
    make, inputs = NETWORKS["residual batch norm"]
    return PermutationSpec.from_module(make(), inputs), made(make, 0), made(make, 1)


def test_the_objective_grows_until_nothing_improves_it():
    spec, first, second = independent()
    matching = match_weights(spec, first, second, generator=torch.Generator().manual_seed(3))
    assert len(matching.history) > 1 and list(matching.history) == sorted(set(matching.history))
    assert matching.objective == matching.history[-1] > agreement(spec, first, second)
    aligned = spec.apply(second, matching.permutation)
    counted = [name for name, axes in spec.axes.items() if any(axes) and "running" not in name]
    assert matching.objective == pytest.approx(sum(float((first[n] * aligned[n]).sum()) for n in counted), rel=1e-5)
    again = match_weights(spec, first, second, start=matching.permutation)
    assert again.history == (again.objective,) and same(again.permutation, matching.permutation)


def test_more_restarts_are_never_worse_and_seeds_repeat():
    spec, first, second = independent()
    one, more, same_seed = (
        match_weights(spec, first, second, restarts=n, generator=torch.Generator().manual_seed(5)) for n in (1, 4, 4)
    )
    assert more.objective >= one.objective
    assert same(more.permutation, same_seed.permutation) and more.history == same_seed.history


def test_what_is_frozen_stays_where_it_is():
    spec, first, second = independent()
    name = spec.permutations[0]
    matching = match_weights(spec, first, second, frozen=[name])
    assert torch.equal(matching.permutation[name], torch.arange(spec.sizes[name]))
    assert not torch.equal(match_weights(spec, first, second).permutation[name], torch.arange(spec.sizes[name]))


def test_what_is_frozen_within_heads_stays_while_the_heads_move():
    weights = {name: noise(*shape) for name, shape in SPEC.shapes.items()}
    moved = SPEC.random_permutation(torch.Generator().manual_seed(1), names=["a", "h"])
    matching = match_weights(SPEC, weights, SPEC.apply(weights, moved), frozen=["c", "d"])
    assert same(SPEC.apply(SPEC.apply(weights, moved), matching.permutation), weights)
    unlike = {name: noise(3, *shape)[2] for name, shape in SPEC.shapes.items()}
    other = match_weights(SPEC, weights, unlike, frozen=["c"])
    assert torch.equal(other.permutation["c"], torch.arange(4).expand(3, 4))
    assert not torch.equal(other.permutation["d"], torch.arange(5).expand(3, 5))


def test_the_agreement_of_several_dicts_is_summed():
    spec = PermutationSpec({"w": ("n", None), "v": (None, "n")}, {"n": 12}, {}, {"w": (12, 3), "v": (2, 12)})
    means = {"w": torch.ones(12, 3), "v": torch.ones(2, 12)}  # they tell nothing
    stds = {"w": noise(12, 3), "v": noise(2, 12)}
    permutation = spec.random_permutation(torch.Generator().manual_seed(0))
    matching = match_weights(spec, [means, stds], [means, spec.apply(stds, permutation)])
    assert torch.equal(matching.permutation["n"], permutation["n"].argsort())
    assert matching.objective == pytest.approx(36 + 24 + sum(float(t.square().sum()) for t in stds.values()))
    alone = match_weights(spec, means, means)
    assert not torch.equal(alone.permutation["n"], permutation["n"].argsort())


def test_fields_of_a_layout_are_matched():
    tensors = [
        SimpleNamespace(name="w", shape=(32, 2), axes=("n", None)),
        SimpleNamespace(name="v", shape=(1, 32), axes=(None, "n")),
    ]
    spec = PermutationSpec.from_layout(tensors)
    assert recovers(spec, {"w": noise(32, 2), "v": noise(1, 32)}, 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.pop("0.weight"), "second network has no tensor '0.weight'"),
        (lambda d: d.update(more=noise(2)), "first network has no tensor 'more'"),
        (lambda d: d.update({"0.weight": noise(8, 5)}), r"\(8, 6\) in the first network and \(8, 5\) in the second"),
        (lambda d: d["0.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_other_tensors_are_refused(change, text):
    net = mlp(6, 8, 4)
    spec, weights = PermutationSpec.from_module(net, noise(2, 6)), dict(net.state_dict())
    other = {name: tensor.clone() for name, tensor in weights.items()}
    change(other)
    with pytest.raises(UserError, match=text):
        match_weights(spec, weights, other)


def test_tensors_outside_the_spec_are_refused():
    net = mlp(6, 8, 4)
    spec, weights = PermutationSpec.from_module(net, noise(2, 6)), dict(net.state_dict()) | {"more": noise(3)}
    with pytest.raises(UserError, match="the spec says nothing of 'more'"):
        match_weights(spec, weights, weights)
    with pytest.raises(UserError, match="frozen names 'x'"):
        match_weights(spec, dict(net.state_dict()), dict(net.state_dict()), frozen="x")
    with pytest.raises(UserError, match="1 and 2 dicts"):
        match_weights(spec, weights, [weights, weights])


def test_units_that_nothing_tells_apart_end_the_search():
    net = Computed(lambda self, x: self.b(torch.relu(self.a(x))), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    spec = PermutationSpec.from_module(net, noise(2, 3))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    assert match_weights(spec, zeros, zeros).objective == 0


def test_assignments_are_the_best_ones():
    scores = torch.tensor([[[1.0, 5.0], [4.0, 6.0]], [[9.0, 0.0], [0.0, 1.0]]])
    order, sums = best_assignment(scores)
    assert order.tolist() == [[1, 0], [0, 1]] and sums.tolist() == [9, 10]
    assert [tuple(each.shape) for each in best_assignment(scores[:0])] == [(0, 2), (0,)]
