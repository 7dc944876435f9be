"""Two networks aligned in one call: from modules, state dicts or files, and what it says of the path."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from symmetry_networks import mlp, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.fields import Representation, RepresentationConfig
from wsrl.fields.network import FieldConfig
from wsrl.symmetry import PermutationSpec, RefinementOptions, align_networks
from wsrl.symmetry.matching.linear_stack import LinearStack, layers_in_order


def networks(make, inputs):
    """A network, a copy with its units in other places, and the spec."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, copied = make(), make()
    spec = PermutationSpec.from_module(net, inputs)
    permutation = spec.random_permutation(torch.Generator().manual_seed(1))
    copied.load_state_dict(spec.apply(dict(net.state_dict()), permutation))
    return net.eval(), copied.eval(), spec


def plain() -> nn.Module:
    return mlp(6, 16, 16, 3, activation=nn.ReLU)


def pictures() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)]
    return nn.Sequential(*layers)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", ["modules", "state dicts", "files"])
def test_networks_come_in_three_forms(form, tmp_path):
    net, copied, _ = networks(plain, noise(1, 6))
    forms = [net, copied]
    if form != "modules":
        forms = [dict(module.state_dict()) for module in forms]
    if form == "files":
        for number, weights in enumerate(forms):
            save_file(weights, tmp_path / f"{number}.safetensors")
        forms = [tmp_path / "0.safetensors", str(tmp_path / "1.safetensors")]
    alignment = align_networks(*forms)
    assert same(alignment.aligned, dict(net.state_dict())) and not same(
        dict(copied.state_dict()), dict(net.state_dict())
    )
    assert alignment.before is None and alignment.after is None and alignment.objective > alignment.objective_before


@pytest.mark.parametrize("method", ["weights", "activations", "straight-through"])
def test_the_path_to_a_copy_is_flat_after_alignment(method):
    inputs = noise(60, 1, 4, 4)
    net, copied, _ = networks(pictures, inputs)
    with torch.no_grad():
        targets = net(inputs).argmax(1)
    options = {"method": method, "num_points": 5, "refinement": RefinementOptions(num_steps=2, batch_size=20)}
    alignment = align_networks(net, copied, data=(inputs, targets), **options)
    assert same(alignment.aligned, dict(net.state_dict()))
    assert alignment.after.losses.shape == alignment.after.accuracies.shape == (5,)
    assert alignment.after.barrier == pytest.approx(0, abs=1e-6) and np.ptp(alignment.after.losses) < 1e-6
    assert alignment.before.barrier > 0.005
    assert alignment.before.losses[[0, -1]] == pytest.approx(alignment.after.losses[[0, -1]], abs=1e-5)


def test_losses_are_those_of_held_out_examples():
    net, copied, _ = networks(plain, noise(1, 6))
    x, y = noise(40, 6), torch.arange(40) % 3
    options = {"data": (x, y), "num_points": 3}
    held = align_networks(net, copied, heldout=(x[:10] + 1, y[:10]), **options).after
    expected = nn.functional.cross_entropy(net(x[:10] + 1), y[:10])
    assert held.losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert align_networks(net, copied, **options).after.losses[0] != held.losses[0]
    assert align_networks(net, copied, data=(x, y), num_points=None).after is None


def test_fields_are_aligned_by_the_spec_of_their_layout():
    field = FieldConfig(width=12, depth=3, encoding="identity", activation="sine")
    made = Representation.build(RepresentationConfig(kind="mlp", field=field), None, in_features=2, out_features=1)
    starts = made.initial(generator=torch.Generator().manual_seed(0), num=1)
    first = {name: tensor[0] for name, tensor in starts.items()}
    spec = PermutationSpec.from_layout(made.layout)
    copied = spec.apply(first, spec.random_permutation(torch.Generator().manual_seed(1)))
    coords = torch.linspace(-1, 1, 20).view(10, 2)

    def scores(weights):
        shown = made.evaluate({name: tensor[None] for name, tensor in weights.items()}, coords)
        return float((shown - made.evaluate(starts, coords)).square().mean()), float("nan")

    alignment = align_networks(first, copied, spec=spec, scores=scores, num_points=5)
    assert same(alignment.aligned, first)
    assert alignment.after.barrier < 1e-9 < 1e-4 < alignment.before.barrier


def test_what_is_missing_is_said():
    net, copied, _ = networks(pictures, noise(2, 1, 4, 4))
    with pytest.raises(UserError, match="the symmetry of the networks is not known"):
        align_networks(net, copied)
    assert same(align_networks(net, copied, example_inputs=noise(2, 1, 4, 4)).aligned, dict(net.state_dict()))
    with pytest.raises(UserError, match=r"no plain stack of linear layers: it has '1\.running_mean'"):
        align_networks(dict(net.state_dict()), dict(copied.state_dict()))
    with pytest.raises(UserError, match="matching by activations needs a module and examples"):
        align_networks(net, copied, example_inputs=noise(2, 1, 4, 4), method="activations")
    with pytest.raises(UserError, match=r"method is 'magic'.*straight-through"):
        align_networks(net, copied, method="magic")
    with pytest.raises(UserError, match="int is no network"):
        align_networks(3, copied)
    with pytest.raises(UserError, match="network has no tensor"):
        align_networks(plain(), copied)


def test_layers_are_ordered_by_number_and_else_by_shape():
    numbered = {f"{k}.weight": noise(5, 5) for k in (10, 2, 0)}
    assert layers_in_order(numbered) == ["0", "2", "10"]
    named = {"out.weight": noise(3, 7), "first.weight": noise(7, 2), "first.bias": noise(7)}
    assert layers_in_order(named) == ["first", "out"]
    net = LinearStack(named)
    x = noise(4, 2)
    expected = torch.relu(x @ named["first.weight"].T + named["first.bias"]) @ named["out.weight"].T
    assert torch.allclose(net(x), expected) and set(net.state_dict()) == set(named)
    nested = {"body.0.weight": noise(7, 2), "body.2.weight": noise(3, 7)}
    assert set(LinearStack(nested).state_dict()) == set(nested)


@pytest.mark.parametrize(
    "names",
    [
        ["a_in", "b_one", "b_two", "z_out"],  # words
        ["decoder.0", "decoder.2", "encoder.0", "encoder.2"],  # words before the numbers
        ["l.0.fc_in", "l.0.fc_mid", "l.0.fc_out", "l.1.fc_in"],  # words behind them
        ["fc0", "fc1", "fc01", "fc2"],  # numbers that are alike
    ],
)
def test_an_order_that_would_be_a_guess_is_refused(names):
    """Reported as samuela/git-re-basin#5: square layers were put in the order of the alphabet."""
    weights = {f"{name}.weight": noise(*shape) for name, shape in zip(names, [(6, 2), (6, 6), (6, 6), (1, 6)])}
    with pytest.raises(UserError, match=r"more than one order; only numbers.*--network MODULE:FUNCTION"):
        align_networks(weights, weights)


@pytest.mark.parametrize(
    "names",
    [[f"fc{k}" for k in range(1, 13)], [f"layers.{k}" for k in (0, 2, 10)], ["z", "b.0", "b.1", "b.10", "a"]],
)
def test_numbers_are_an_order(names):
    shapes = [(6, 2), *[(6, 6)] * (len(names) - 2), (1, 6)]
    weights = {f"{name}.weight": noise(*shape) for name, shape in zip(names, shapes)}
    assert layers_in_order(dict(sorted(weights.items()))) == names
    square = {f"{name}.weight": noise(6, 6) for name in names[1:-1]}
    assert layers_in_order(dict(sorted(square.items()))) == names[1:-1]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"a.weight": (5, 4), "b.weight": (3, 2)}, "fit together in no order"),
        ({"y.weight": (4, 4), "x.weight": (2, 4), "w.weight": (4, 4)}, "fit together in more than one order"),
        ({"a.weight": (5, 4), "a.scale": (5,)}, "it has 'a.scale'"),
        ({"a.weight": (5, 4, 1)}, "it has 'a.weight'"),
        ({"a.weight": (5, 4), "a.bias": (4,)}, "it has 'a.bias'"),
        ({"bias": (4,)}, "it has 'bias'"),
    ],
)
def test_other_networks_are_no_stack(weights, text):
    with pytest.raises(UserError, match=text):
        LinearStack({name: noise(*shape) for name, shape in weights.items()})
