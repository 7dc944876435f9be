"""Operations that mix places: channels beside them permute, or the operation is named."""

import pytest
import torch
from index_operations import FOLLOWED, REFUSED
from symmetry_networks import Computed, inferred_spec, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.spec.spec import PermutationSpec

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("Sparse", "index_reduce", "The reduce argument", "indexing with dtype torch.uint8")
]


def with_operation(operation) -> nn.Module:
    """Six hidden channels beside the tokens that an operation mixes."""
    return Computed(lambda self, x: self.o(torch.relu(operation(self.i(x)))), i=nn.Linear(3, 6), o=nn.Linear(6, 2))


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_beside_mixed_tokens_permute(name):
    """Messages as in pyg-team/pytorch_geometric, samuela/git-re-basin#6, FNO and FNet are made of these."""
    assert inferred_spec(with_operation(FOLLOWED[name]), noise(2, 4, 3)).sizes == {"i": 6}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_named(name):
    with pytest.raises(UserError, match=f"no rule for the operation {name}.*described=") as error:
        PermutationSpec.from_module(with_operation(REFUSED[name]), noise(2, 4, 3))
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("moved", [0, 1])
def test_operations_along_channels_are_never_wrong(name, moved):
    """The same operations with channels where the tokens were, or where the items were; the spec is proved."""
    layer, shape = (nn.Linear(3, 2), (4, 6, 3)) if moved == 0 else (nn.Linear(3, 4), (2, 6, 3))

    def run(self, x):
        hidden = self.i(x).movedim(-1, moved)
        out = torch.relu(FOLLOWED[name](hidden)).flatten()
        return (out * torch.arange(1, len(out) + 1).sin()).sum()

    net, x = Computed(run, i=layer), noise(*shape)
    try:
        spec = PermutationSpec.from_module(net, x)
    except UserError as error:
        assert "no rule" in str(error)
        return
    assert spec.verify(net, x).largest_error <= 1e-10


@pytest.mark.parametrize("operation", [lambda h: h.sort(-1).values, lambda h: h.topk(3, -1).values])
def test_channels_that_are_sorted_permute_alone(operation):
    net = Computed(lambda self, x: operation(torch.tanh(self.i(x))), i=nn.Linear(3, 6))
    assert inferred_spec(net, noise(2, 3)).sizes == {"i": 6}


def test_channels_whose_places_are_read_are_fixed():
    net = Computed(
        lambda self, x: self.o(self.i(x)).gather(-1, self.i(x).argsort(-1)), i=nn.Linear(3, 6), o=nn.Linear(6, 6)
    )
    assert inferred_spec(net, noise(2, 3)).permutations == ()


def test_a_mask_of_channels_that_depends_on_them_fixes_them():
    net = Computed(lambda self, x: self.i(x)[self.i(x).abs() >= 0].view(2, 6).cumsum(1), i=nn.Linear(3, 6))
    assert inferred_spec(net, noise(2, 3)).permutations == ()


def test_an_expert_that_gets_no_token_keeps_its_permutation():
    """Mixtral's loop over experts: the one that the example never reaches has hidden units of its own."""

    def run(self, x):
        stream, out = self.i(x), torch.zeros(5, 6, dtype=x.dtype)
        for number, expert in enumerate((self.first, self.second)):
            rows = torch.nonzero(torch.zeros(5, dtype=torch.long) == number)[:, 0]
            out.index_add_(0, rows, expert(stream[rows]))
        return self.o(out)

    first, second = (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6)) for _ in range(2))
    net = Computed(run, i=nn.Linear(3, 6), first=first, second=second, o=nn.Linear(6, 2))
    spec = PermutationSpec.from_module(net, noise(5, 3))
    assert spec.sizes == {"i": 6, "first.0": 4, "first.2": 6, "second.0": 4}
    assert spec.axes["second.2.weight"] == ("first.2", "second.0") == (spec.axes["o.weight"][1], "second.0")
    assert spec.axes["second.0.weight"] == ("second.0", "i")


def test_a_sparse_buffer_holds_its_nodes():
    net = Computed(lambda self, x: self.o(torch.relu(self.edges @ self.i(x))), i=nn.Linear(3, 6), o=nn.Linear(6, 2))
    net.register_buffer("edges", torch.tensor([[0.0, 1, 0], [2, 0, 0], [0, 3, 4]]).to_sparse())
    assert inferred_spec(net, noise(3, 3)).sizes == {"i": 6}


def test_a_store_that_is_empty_at_first_ties_nothing():
    """Keys and values are joined to a cache that holds no step yet, as in HF's caches."""
    net = Computed(
        lambda self, x: self.o(torch.cat([torch.zeros(2, 0, 6), self.i(x)], 1).cumsum(1)),
        i=nn.Linear(3, 6), o=nn.Linear(6, 2),
    )  # fmt: skip
    assert PermutationSpec.from_module(net, noise(2, 3, 3)).sizes == {"i": 6}
