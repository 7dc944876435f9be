"""Fields by the conventions of others, against plain modules that follow them."""

import pytest
import torch
from torch import nn

from wsrl.errors import UserError
from wsrl.exchange.networks import read_network
from wsrl.fields.foreign import Convention, ForeignRepresentation
from wsrl.fields.network import FieldConfig
from wsrl.fields.open import open_representation
from wsrl.fields.representation import RepresentationConfig
from wsrl.signals.signal import grid_coords

GRID = (6, 4)
MODULES = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "gelu": nn.GELU(), "elu": nn.ELU(), "silu": nn.SiLU()}


def network(tmp_path, text):
    path = tmp_path / "network.yaml"
    path.write_text(f"out_features: 3\nsignal: {{grid: [{GRID[0]}, {GRID[1]}]}}\n{text}\n")
    return read_network(path).representation


def stack(activation):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 3))


def weights_of(module):
    values = [layer for layer in module if isinstance(layer, nn.Linear)]
    weights = {f"layers.{i}.weight": layer.weight.detach()[None] for i, layer in enumerate(values)}
    return weights | {f"layers.{i}.bias": layer.bias.detach()[None] for i, layer in enumerate(values)}


@pytest.mark.parametrize("name", MODULES)
def test_activations_of_others(tmp_path, name):
    module = stack(MODULES[name])
    representation = network(tmp_path, f"field: {{width: 8, depth: 2, activation: {name}}}\nvalues: {{final: sigmoid}}")
    coords = grid_coords(GRID)
    with torch.no_grad():
        expected = torch.sigmoid(module(coords))
        assert (representation.evaluate(weights_of(module), coords)[0] - expected).abs().max() < 1e-6


def linspace(height, width, low, high):
    rows, columns = torch.linspace(low, high, height), torch.linspace(low, high, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)


def centres(height, width, low, high):
    rows, columns = ((torch.arange(n) + 0.5) / n * (high - low) + low for n in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)


@pytest.mark.parametrize("ends, theirs", [("corners", linspace), ("centres", centres)])
@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 1.0), (-0.5, 3.0)])
@pytest.mark.parametrize("order", ["down_right", "right_down"])
def test_coordinates_of_others(tmp_path, ends, theirs, low, high, order):
    module = stack(nn.ReLU())
    coordinates = f"coordinates: {{order: {order}, range: [{low}, {high}], ends: {ends}}}"
    representation = network(tmp_path, f"field: {{width: 8, depth: 2, activation: relu}}\n{coordinates}")
    expected = theirs(*GRID, low, high)
    expected = expected.flip(-1) if order == "right_down" else expected
    assert (representation.encoding(grid_coords(GRID)).mT - expected).abs().max() < 1e-6
    ours = representation.evaluate(weights_of(module), grid_coords(GRID))[0]
    assert (ours - module(expected)).abs().max() < 1e-5


def test_a_range_of_values_becomes_zero_to_one(tmp_path):
    module, coords = stack(nn.ReLU()), grid_coords(GRID)
    raw = network(tmp_path, "field: {width: 8, depth: 2, activation: relu}").evaluate(weights_of(module), coords)
    ranged = network(tmp_path, "field: {width: 8, depth: 2, activation: relu}\nvalues: {range: [-0.5, 0.5]}")
    assert torch.equal(ranged.evaluate(weights_of(module), coords), raw + 0.5)
    text = "values: {scale: [1, 2, 4], offset: [0, 1, 0.5]}"
    channels = network(tmp_path, f"field: {{width: 8, depth: 2, activation: relu}}\n{text}")
    expected = raw * torch.tensor([1.0, 2.0, 4.0]) + torch.tensor([0.0, 1.0, 0.5])
    assert torch.equal(channels.evaluate(weights_of(module), coords), expected)


def test_without_differences_it_is_our_own_representation(tmp_path):
    plain = network(tmp_path, "field: {width: 8, depth: 2, omega: 5, omega_hidden: 1}\nvalues: {range: [0, 1]}")
    assert not isinstance(plain, ForeignRepresentation) and "convention" not in plain.to_dict()
    foreign = ForeignRepresentation(plain.config, Convention(), 2, 3)
    weights = {name: tensor[None] for name, tensor in plain.initial().items()}
    assert torch.equal(foreign.evaluate(weights, grid_coords(GRID)), plain.evaluate(weights, grid_coords(GRID)))


def test_plain_values_rebuild_it(tmp_path):
    text = "field: {width: 8, depth: 2, omega_hidden: 30}\ncoordinates: {ends: corners, order: right_down}"
    first = network(tmp_path, text)
    again = open_representation(first.to_dict())
    assert again.convention == first.convention and again.to_dict() == first.to_dict()
    weights = {spec.name: torch.ones(1, *spec.shape) for spec in first.layout}
    assert torch.equal(first.evaluate(weights, grid_coords(GRID)), again.evaluate(weights, grid_coords(GRID)))


@pytest.mark.parametrize(
    "convention, wrong",
    [
        ({"coord_order": (0, 0)}, "order of the coordinates"),
        ({"coord_scale": (1.0,)}, "coord_scale has 1 numbers"),
        ({"value_scale": (1.0, 2.0)}, "value_scale has 2 numbers"),
    ],
)
def test_a_convention_for_another_network_is_refused(convention, wrong):
    config = RepresentationConfig(kind="mlp", field=FieldConfig(width=4, depth=1, encoding="identity"))
    with pytest.raises(UserError, match=wrong):
        ForeignRepresentation(config, Convention(**convention), 2, 3)


def test_it_is_not_fitted():
    config = RepresentationConfig(kind="mlp", field=FieldConfig(width=4, depth=1, encoding="identity"))
    with pytest.raises(UserError, match="not fitted here"):
        ForeignRepresentation(config, Convention(omega_hidden=30.0), 2, 3).initial()
