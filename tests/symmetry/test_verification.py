"""Specs are proved: right ones pass, wrong ones are refused and named, and broken ties are seen."""

from dataclasses import replace

import pytest
import torch
from symmetry_networks import Computed, attention_by_hand, mlp, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Concat, Product
from wsrl.symmetry.spec.spec import PermutationSpec


def changed(spec: PermutationSpec, axes: dict, sizes: dict | None = None) -> PermutationSpec:
    return replace(spec, axes={**spec.axes, **axes}, sizes={**spec.sizes, **(sizes or {})})


def test_a_right_spec_passes_and_every_tie_is_seen():
    net = mlp(2, 5, 6, 3)
    spec = PermutationSpec.from_module(net, noise(4, 2))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = spec.verify(net, noise(4, 2))
    assert 0 <= report.largest_error <= 1e-10 and report.trials == 3
    assert report.ties_seen == ("0", "2") and report.silent == report.alone == ()
    assert net.training and all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("axes", "sizes", "wrong"),
    [
        ({"2.weight": ("2", "other")}, {"other": 5}, "0"),
        ({"0.bias": (None,)}, {}, "0"),
        ({"4.bias": ("out",)}, {"out": 3}, "out"),
        ({"0.weight": ("0", "in")}, {"in": 2}, "in"),
    ],
)
def test_a_wrong_spec_is_refused_and_the_permutation_named(axes, sizes, wrong):
    net = mlp(2, 5, 6, 3)
    spec = changed(PermutationSpec.from_module(net, noise(4, 2)), axes, sizes)
    with pytest.raises(UserError, match=f"{wrong!r}.* changes? the output.*Allowed: at most 1e-10"):
        spec.verify(net, noise(4, 2))


def test_zeros_and_fresh_statistics_hide_nothing():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    spec = PermutationSpec.from_module(net, noise(5, 3))
    assert spec.verify(net, noise(5, 3)).ties_seen == ("0",)
    for name in ("0.bias", "1.weight", "1.running_mean", "1.running_var"):
        with pytest.raises(UserError, match="'0' changes the output"):
            changed(spec, {name: (None,)}).verify(net, noise(5, 3))


def test_channels_of_heads_must_stay_with_their_heads():
    net = attention_by_hand(6, 2, 4, 5)
    spec = PermutationSpec.from_module(net, noise(2, 3, 3))
    assert set(spec.verify(net, noise(2, 3, 3)).ties_seen) == set(spec.permutations)
    loose = changed(spec, {"k.weight": (8, "before"), "k.bias": (8,)})
    with pytest.raises(UserError, match=r"'q.heads' changes the output.*so do 'q.channels'|'q.channels' changes"):
        loose.verify(net, noise(2, 3, 3))
    whole = PermutationSpec(
        {"q.weight": ("x", None), "k.weight": ("x", None), "q.bias": ("x",), "k.bias": ("x",)}, {"x": 8}
    )
    with pytest.raises(UserError, match="'x' changes the output"):
        whole.verify(net, noise(2, 3, 3))


def test_units_that_nothing_reads_are_silent():
    net = Computed(lambda self, x: self.b(self.a(x)) * 0 + x, a=nn.Linear(3, 4), b=nn.Linear(4, 3))
    report = PermutationSpec.from_module(net, noise(2, 3)).verify(net, noise(2, 3))
    assert report.silent == ("a",) and report.ties_seen == ()


def test_a_permutation_of_one_axis_has_no_tie():
    net = Computed(lambda self, x: x * self.scale.square().sum(), scale=nn.Parameter(noise(4)))
    spec = PermutationSpec.from_module(net, noise(2, 3))
    assert spec.axes == {"scale": ("scale",)} and spec.verify(net, noise(2, 3)).alone == ("scale",)


def test_hand_written_specs_of_some_tensors_are_accepted():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    axes = {"0.weight": ("c", None, None, None), "0.bias": ("c",), "3.weight": (None, Product(("c", 9)))}
    spec = PermutationSpec(axes, {"c": 4})
    assert spec.verify(net, noise(2, 1, 5, 5)).ties_seen == ("c",)
    wrong = PermutationSpec({**axes, "3.weight": (None, Product((9, "c")))}, {"c": 4})
    with pytest.raises(UserError, match=r"'c' changes the output.*it acts on 0.weight, 0.bias, 3.weight"):
        wrong.verify(net, noise(2, 1, 5, 5))
    with pytest.raises(UserError, match=r"no tensor 9.weight"):
        PermutationSpec({"9.weight": ("c",)}, {"c": 4}).verify(net, noise(2, 1, 5, 5))


def test_functions_of_weights_are_verified_too():
    def function(weights, x):
        return torch.tanh(x @ weights["a"].mT) @ weights["b"].mT

    weights = {"a": noise(1, 4, 3), "b": noise(1, 2, 4)}
    spec = PermutationSpec.from_function(function, weights, noise(5, 3))
    assert spec.axes == {"a": ("a", None), "b": (None, "a")} and spec.shapes == {"a": (4, 3), "b": (2, 4)}
    assert spec.verify(function, noise(5, 3), weights=weights).ties_seen == ("a",)
    with pytest.raises(UserError, match="without weights"):
        spec.verify(function, noise(5, 3))


def test_dropout_is_off_and_the_generator_decides():
    net = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 2))
    spec = PermutationSpec.from_module(net, noise(4, 2))
    assert spec.permutations == ("0",)
    reports = [spec.verify(net, noise(4, 2), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert reports[0] == reports[1] and all(report.largest_error < 1e-10 for report in reports)


def test_what_the_inputs_do_not_reach_is_told():
    """Reported as samuela/git-re-basin#5: unread rows that move were called proved ("alone")."""
    net = Computed(
        lambda self, x: self.o(torch.relu(self.i(x) + self.pos[:, : x.shape[1]])),
        i=nn.Linear(3, 6),
        o=nn.Linear(6, 2),
        pos=nn.Parameter(noise(1, 9, 6)),
    )
    spec = PermutationSpec.from_module(net, noise(2, 4, 3))
    assert spec.verify(net, noise(2, 4, 3)).unread == {"pos": 30} and spec.verify(net, noise(2, 9, 3)).unread == {}
    loose = changed(spec, {"pos": (None, Concat((4, "rows")), "i")}, {"rows": 5})
    report = loose.verify(net, noise(2, 4, 3))
    assert report.silent == ("rows",) and report.alone == () and report.unread == {"pos": 30}
    with pytest.raises(UserError, match="'rows' changes the output"):
        loose.verify(net, noise(2, 9, 3))
    assert spec.verify(net, torch.zeros(2, 4, 3)).unread == {"i.weight": 18, "pos": 30}


def test_masks_and_whole_numbers_stay_as_they_are():
    seen, kept = [], torch.ones(5, 5).tril()

    def run(self, x, mask, indices):
        seen.append((self.lower.clone(), self.causal.clone(), self.frozen.clone(), mask.clone(), indices.clone()))
        scores = (self.q(x) @ self.k(x).mT).masked_fill(~mask, -1e9).masked_fill(self.causal == 0, float("-inf"))
        return scores.masked_fill(~self.lower, -1e9).softmax(-1) @ self.v(x) * self.frozen + self.e(indices)

    linear = {name: nn.Linear(3, 5) for name in ("q", "k", "v")}
    frozen = nn.Parameter(torch.tensor([1.0, 0, 1, 1, 0]), requires_grad=False)
    net = Computed(run, **linear, e=nn.Embedding(7, 5), frozen=frozen)
    net.register_buffer("causal", kept)
    net.register_buffer("lower", kept > 0)
    inputs = (noise(2, 5, 3), torch.rand(2, 5, 5) > 0.3, torch.arange(5))
    inputs[1][:, :, 0] = True
    spec = PermutationSpec.from_module(net, inputs)
    seen.clear()
    report = spec.verify(net, inputs)
    assert report.ties_seen and len(seen) > 5 and set(report.unread) >= {"e.weight"}
    for lower, causal, mask_of_channels, mask, indices in seen:
        assert torch.equal(lower, kept > 0) and torch.equal(causal, kept.double())
        assert torch.equal(mask_of_channels, frozen.double())
        assert torch.equal(mask, inputs[1]) and torch.equal(indices, inputs[2])
