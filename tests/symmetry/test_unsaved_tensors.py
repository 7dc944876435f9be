"""Tensors that ``state_dict()`` does not hold stay where they are, and all names of a spec are names of weights."""

import copy

import pytest
import torch
from symmetry_networks import noise
from torch import nn
from torch.nn.utils import parametrizations

from wsrl.symmetry import PermutationSpec, align_networks


class Rotary(nn.Module):
    """Attention whose queries and keys are turned by angles that stand in a tensor ``inv`` of some kind."""

    def __init__(self, seed: int, kind: str):
        super().__init__()
        torch.manual_seed(seed)
        self.e, self.o = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        inv = 1 / 100 ** (torch.arange(0, 8, 2) / 8)
        if kind == "attribute":
            self.inv = inv
        elif kind == "list":
            self.table = [inv]
        elif kind == "tied":
            self.o.weight = self.e.weight
        elif kind == "parametrized":
            parametrizations.weight_norm(self.v)
            parametrizations.orthogonal(self.o)
        if kind not in ("attribute", "list"):
            self.register_buffer("inv", inv, persistent=kind == "saved")

    def forward(self, words):
        x, inv = self.e(words), self.table[0] if hasattr(self, "table") else self.inv
        angle = torch.outer(torch.arange(x.shape[1]).to(x.dtype), inv.to(x.dtype)).repeat(1, 2)

        def turn(z):
            return z * angle.cos() + torch.cat([-z[..., 4:], z[..., :4]], -1) * angle.sin()

        return self.o((turn(self.q(x)) @ turn(self.k(x)).mT).softmax(-1) @ self.v(x))


WORDS = torch.arange(12).view(2, 6) % 11


@pytest.mark.parametrize("kind", ["unsaved", "saved", "attribute", "list", "tied", "parametrized"])
def test_an_aligned_network_computes_what_it_did(kind):
    """Reported as samuela/git-re-basin#5: frequencies that are not saved moved, and nobody could load them."""
    with torch.random.fork_rng(devices=[]):
        a, b = Rotary(0, kind).eval(), Rotary(1, kind).eval()
    spec = PermutationSpec.from_module(a, WORDS)
    assert spec.permutations
    assert set(spec.axes) == set(a.state_dict()) and ("inv" in spec.axes) == (kind == "saved")
    weights = {name: a.state_dict()[name][None] for name in spec.axes}  # the README's line
    moved = spec.augment(weights, torch.Generator().manual_seed(0))
    spec.verify(a, WORDS)
    for net, loaded in (
        (a, {k: v[0] for k, v in moved.items()}),
        (b, align_networks(a, b, example_inputs=WORDS).aligned),
    ):
        other = copy.deepcopy(net)
        other.load_state_dict(loaded)
        assert any(not torch.equal(loaded[name], tensor) for name, tensor in net.state_dict().items())
        torch.testing.assert_close(other(WORDS), net(WORDS), rtol=1e-4, atol=1e-5)


def test_an_unsaved_buffer_holds_what_is_tied_to_it_and_can_be_named():
    held = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    held[1].register_buffer("running_mean", torch.zeros(6), persistent=False)
    spec = PermutationSpec.from_module(held, noise(4, 3), fixed=["1.running_mean"])
    assert spec.permutations == () and "1.running_mean" not in spec.axes


def test_names_are_those_of_the_state_dict():
    """A hook that renames what is saved, as wrappers do, does not part spec and weights."""

    class Renamed(nn.Sequential):
        def state_dict(self, *args, **kwargs):
            return {f"module.{name}": tensor for name, tensor in super().state_dict(*args, **kwargs).items()}

    net = Renamed(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    spec = PermutationSpec.from_module(net, noise(4, 3))
    assert set(spec.axes) == set(net.state_dict()) and len(spec.permutations) == 1
    assert spec.verify(net, noise(4, 3)).ties_seen == spec.permutations
