"""Networks stacked along an axis that stays: each has permutations of its own, for all that uses a spec."""

import itertools
import json

import pytest
import torch
from symmetry_networks import Computed, inferred_spec, noise
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from wsrl.errors import UserError
from wsrl.symmetry import align_networks, match_weights
from wsrl.symmetry.spec.axes import Product
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.functionals import EquivariantNetwork, InvariantNetwork, UnfConfig

NUM, SIZE = 4, 5


def stacked(run, **shapes) -> nn.Module:
    shapes = {"a": (NUM, 3, SIZE), "c": (NUM, SIZE), "b": (NUM, SIZE, 2), **shapes}
    return Computed(run, **{name: nn.Parameter(noise(*shape)) for name, shape in shapes.items()})


def by_einsum(self, x):
    hidden = torch.relu(torch.einsum("bd,edh->beh", x, self.a) + self.c)
    return torch.einsum("beh,eho->beo", hidden, self.b)


def by_products(self, x):
    return torch.bmm(torch.relu(torch.baddbmm(self.c[:, None], x.expand(NUM, *x.shape), self.a)), self.b)


def one_by_one(self, x):
    return torch.stack([torch.relu(x @ self.a[k] + self.c[k]) @ self.b[k] for k in range(NUM)])


def by_indices(self, x):
    indices = (x[:, 0] * 7).long() % NUM  # the cell of the grid that a point is in
    hidden = torch.relu(torch.einsum("bd,bdh->bh", x, self.a[indices]) + self.c[indices])
    return torch.einsum("bh,bho->bo", hidden, self.b.index_select(0, indices))


def normalised(self, x):
    hidden = nn.functional.layer_norm(torch.einsum("bd,edh->beh", x, self.a) + self.c, (SIZE,))
    return torch.einsum("beh,eho->beo", hidden, self.b)


RUNS = {
    "einsum": by_einsum,
    "products": by_products,
    "one by one": one_by_one,
    "by places": by_indices,
    "normalised": normalised,
}


@pytest.mark.parametrize("name", RUNS)
def test_each_network_of_a_stack_has_permutations_of_its_own(name):
    """KiloNeRF's tiny networks and ensembles: 4 stacked networks have 4 permutations of 5, not one."""
    spec = inferred_spec(stacked(RUNS[name]), noise(8, 3))
    (hidden,), (copies,) = spec.sizes, spec.held
    assert spec.sizes == {hidden: SIZE} and spec.held == {copies: NUM} and spec.within == {hidden: (copies,)}
    assert spec.axes == {"a": (copies, None, hidden), "c": (copies, hidden), "b": (copies, hidden, None)}
    assert spec.table_shape(hidden) == (NUM, SIZE)


def test_networks_chosen_by_different_places_share_a_permutation():
    """Where two layers may be of different networks, only one permutation for all is sure."""

    def run(self, x):
        first, second = torch.arange(8) % NUM, torch.arange(8) % NUM
        hidden = torch.relu(torch.einsum("bd,bdh->bh", x, self.a[first]) + self.c[first])
        return torch.einsum("bh,bho->bo", hidden, self.b[second])

    spec = inferred_spec(stacked(run), noise(8, 3))
    assert list(spec.sizes.values()) == [SIZE] and not spec.held


def test_networks_that_no_place_names_are_tied_all_the_same():
    def run(self, x):
        indices = (x[:, 0] > 100).long()
        hidden = torch.relu(torch.einsum("bd,bdh->bh", x, self.a[indices]) + self.c[indices])
        return torch.einsum("bh,bho->bo", hidden, self.b[indices])

    net, x = stacked(run), noise(8, 3)
    spec = inferred_spec(net, x)
    assert spec.verify(net, torch.cat([x, x + 200])).largest_error <= 1e-10


def test_two_hidden_layers():
    def run(self, x):
        return torch.relu(torch.relu(x @ self.a + self.c[:, None]) @ self.m) @ self.b

    spec = inferred_spec(stacked(run, m=(NUM, SIZE, 7), b=(NUM, 7, 2)), noise(8, 3))
    assert sorted(spec.sizes.values()) == [SIZE, 7] and list(spec.held.values()) == [NUM]
    assert len(set(spec.within.values())) == 1


def test_networks_stacked_by_torch_func():
    """torch.func.stack_module_state with vmap."""
    nets = [nn.Sequential(nn.Linear(3, SIZE), nn.ReLU(), nn.Linear(SIZE, 2)) for _ in range(NUM)]
    states, _ = stack_module_state(nets)
    names = list(states)

    def run(self, x):
        return vmap(lambda state: functional_call(nets[0], state, (x,)))(dict(zip(names, self.states)))

    net = Computed(run, states=nn.ParameterList([nn.Parameter(state.detach()) for state in states.values()]))
    assert sorted({*inferred_spec(net, noise(8, 3)).held.values()}) == [NUM]


def test_networks_whose_mean_is_given_out_permute_with_what_is_inside():
    spec = inferred_spec(stacked(lambda self, x: by_einsum(self, x).mean(1)), noise(8, 3))
    assert sorted(spec.sizes.values()) == [NUM, SIZE] and not spec.held


def test_a_stack_that_one_layer_flattens():
    net = Computed(
        lambda self, x: torch.einsum("beh,eho->beo", torch.relu(self.i(x).view(-1, NUM, SIZE)), self.b),
        i=nn.Linear(3, NUM * SIZE), b=nn.Parameter(noise(NUM, SIZE, 2)),
    )  # fmt: skip
    spec = inferred_spec(net, noise(8, 3))
    (hidden,), (copies,) = spec.sizes, spec.held
    assert spec.axes["i.weight"] == (Product((copies, hidden)), None)


@pytest.fixture(scope="module")
def spec() -> PermutationSpec:
    return PermutationSpec.from_module(stacked(by_einsum), noise(8, 3))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {name: noise(NUM, *shape) for name, shape in (("a", (3, SIZE)), ("c", (SIZE,)), ("b", (SIZE, 2)))}


def test_permutations_differ_between_networks_and_form_a_group(spec, weights):
    p, q = (spec.random_permutation(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    (table,) = p.values()
    assert table.shape == (NUM, SIZE) and not (table == table[:1]).all()
    moved = spec.apply(weights, p)
    for k in range(NUM):
        assert torch.equal(moved["a"][k], weights["a"][k][:, table[k]])
        assert torch.equal(moved["b"][k], weights["b"][k][table[k]])
    both = spec.apply(weights, spec.compose(q, p))
    assert all(torch.equal(both[n], spec.apply(moved, q)[n]) for n in both)
    back = spec.apply(moved, spec.invert(p))
    assert all(torch.equal(back[n], weights[n]) for n in weights)
    batch = spec.augment({n: t.expand(3, *t.shape) for n, t in weights.items()}, torch.Generator().manual_seed(0))
    assert not torch.equal(batch["a"][0], batch["a"][1])


def test_a_held_axis_is_no_permutation(spec, weights):
    (copies,) = spec.held
    with pytest.raises(UserError, match="no permutation of the spec"):
        spec.apply(weights, {copies: torch.tensor([1, 0, 2, 3])})
    with pytest.raises(UserError, match="held and permuted"):
        PermutationSpec({"a": ("e", "h")}, {"e": 2, "h": 3}, {"h": ("e",)}, held={"e": 2})
    with pytest.raises(UserError, match="acts within e, but no axis of e"):
        PermutationSpec({"a": ("h",)}, {"h": 3}, {"h": ("e",)}, held={"e": 2})
    assert f"{copies}: {NUM} held" in str(spec)
    assert PermutationSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_matching_finds_the_permutation_of_each_network(spec, weights):
    p = spec.random_permutation(torch.Generator().manual_seed(3))
    matching = match_weights(spec, weights, spec.apply(weights, p))
    aligned = spec.apply(spec.apply(weights, p), matching.permutation)
    assert all(torch.equal(aligned[n], weights[n]) for n in weights)
    assert set(matching.permutation) == set(spec.sizes)


def test_matching_is_the_best_of_all_permutations_of_each_network(spec, weights):
    other = {name: noise(9, *tensor.shape)[7] for name, tensor in weights.items()}
    matching = match_weights(spec, weights, other)
    best = 0.0
    for k in range(NUM):
        orders = [torch.tensor(order) for order in itertools.permutations(range(SIZE))]
        moved = [(other["a"][k][:, o], other["c"][k][o], other["b"][k][o]) for o in orders]
        own = [weights[name][k] for name in "acb"]
        best += max(sum(float((a * b).sum()) for a, b in zip(own, parts)) for parts in moved)
    assert matching.objective == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("method", ["weights", "activations", "straight-through"])
def test_stacks_are_aligned(method):
    """Four stacked classifiers are summed with different shares, so that none may take another's place."""
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    net = stacked(lambda self, x: (by_einsum(self, x) * shares[:, None]).sum(1))
    data = noise(40, 3), (noise(40) > 0).long()
    spec = PermutationSpec.from_module(net, data[0])
    assert list(spec.held.values()) == [NUM]
    first = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    second = spec.apply(first, spec.random_permutation(torch.Generator().manual_seed(2)))
    result = align_networks(first, second, network=net, data=data, method=method)
    assert all(torch.equal(result.aligned[name], first[name]) for name in first)


def test_encoders_of_weights_tell_the_networks_of_a_stack_apart(spec, weights):
    config = UnfConfig(channels=4, depth=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        same, invariant = (
            EquivariantNetwork(spec, config).double().eval(),
            InvariantNetwork(spec, config).double().eval(),
        )
    x = {name: tensor[None, ..., None].double() for name, tensor in weights.items()}
    p = {name: table[None] for name, table in spec.random_permutation(torch.Generator().manual_seed(0)).items()}
    moved = spec.apply(x, p, leading=1)
    for name, tensor in spec.apply(same(x), p, leading=1).items():
        assert torch.allclose(same(moved)[name], tensor, atol=1e-10)
    assert torch.allclose(invariant(moved), invariant(x), atol=1e-10)
    exchanged = {name: tensor.flip(1) for name, tensor in x.items()}  # of the networks: no symmetry
    assert not torch.allclose(invariant(exchanged), invariant(x), atol=1e-6)
    parts = spec.split(x, leading=1)
    assert all(torch.equal(spec.join(parts, leading=1)[name], x[name]) for name in x)


def test_stacks_that_are_too_large_for_an_encoder_are_refused_by_name():
    many = PermutationSpec({"a": ("e", "h")}, {"h": 3}, {"h": ("e",)}, held={"e": 1000})
    assert many.random_permutation(None)["h"].shape == (1000, 3)
    with pytest.raises(UserError, match=r"a holds 1000 stacked networks.*at most"):
        many.plain  # noqa: B018
