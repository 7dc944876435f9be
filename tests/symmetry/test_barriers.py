"""The path between two networks: its ends, its barrier, and running statistics that belong to every point of it."""

import numpy as np
import pytest
import torch
from symmetry_networks import mlp, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.matching.barriers import (
    NetworkScores,
    barrier,
    estimate_statistics,
    interpolate,
    load_weights,
    path_losses,
)


def test_a_path_is_straight_and_keeps_its_ends():
    a, b = ({"w": noise(3) + k, "count": torch.tensor(k)} for k in (1, 2))
    assert torch.equal(interpolate(a, b, 0.0)["w"], a["w"]) and torch.equal(interpolate(a, b, 1.0)["w"], b["w"])
    middle = interpolate(a, b, 0.25)
    assert torch.allclose(middle["w"], a["w"] + 0.25) and middle["count"] == 1
    assert np.allclose(path_losses(lambda w: float(w["w"].sum()), a, b, 5), float(a["w"].sum()) + np.arange(5) * 0.75)
    assert path_losses(lambda w: (0.0, w["w"].sum()), a, b, 4).shape == (4, 2)


def test_the_barrier_is_measured_from_the_straight_line():
    line = np.linspace(3, 1, 25)
    assert barrier(line) == pytest.approx(0) and barrier(line - np.sin(np.linspace(0, np.pi, 25))) == 0
    bump = np.zeros(25)
    bump[7] = 0.5
    assert barrier(line + bump) == pytest.approx(0.5)
    assert barrier(torch.tensor([0.0, 2.0, 2.0])) == pytest.approx(1.0)
    with pytest.raises(UserError, match="a path of 2 points has no inside"):
        barrier([0.0, 1.0])


def test_scores_are_means_over_all_examples():
    net, x, y = mlp(5, 8, 3, activation=nn.ReLU), noise(23, 5), torch.arange(23) % 3
    loss, accuracy = NetworkScores(net, x, y, at_once=10)(net.state_dict())
    outputs = net(x)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(outputs, y).detach()), rel=1e-5)
    assert accuracy == pytest.approx(float((outputs.argmax(1) == y).double().mean()))
    loss, accuracy = NetworkScores(net, x, noise(23, 3), loss=nn.functional.mse_loss)(net.state_dict())
    assert loss > 0 and np.isnan(accuracy)


@pytest.fixture(autouse=True)
def same_start():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))


def test_running_statistics_are_those_of_the_examples():
    net, x = normalised().eval(), 3 + 2 * noise(64, 4)
    estimate_statistics(net, x.split(16))
    hidden = net[0](x).detach()
    assert torch.allclose(net[1].running_mean, hidden.mean(0), atol=1e-5)
    within = torch.stack([part.var(0) for part in hidden.split(16)]).mean(0)
    assert torch.allclose(net[1].running_var, within, rtol=1e-4)
    assert not net.training and not net[1].training and net[1].momentum == 0.1


def test_scores_use_statistics_of_the_weights_at_hand():
    net, x, y = normalised(), noise(64, 4), torch.arange(64) % 2
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wrong = weights | {"1.running_mean": weights["1.running_mean"] + 5, "1.running_var": weights["1.running_var"] / 100}
    scores = NetworkScores(net, x, y)
    assert scores(weights) == scores(wrong)
    load_weights(net, wrong)
    stale = float(nn.functional.cross_entropy(net.eval()(x), y).detach())
    assert abs(scores(weights)[0] - stale) > 0.01
    assert torch.equal(net[1].running_mean, wrong["1.running_mean"])  # of the user's module nothing has changed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.pop("0.weight"), "the weights have no '0.weight'"),
        (lambda d: d.update(more=noise(2)), "the module has no tensor 'more'"),
        (lambda d: d.update({"0.weight": noise(3, 3)}), r"don't fit into the module: .*0\.weight"),
    ],
)
def test_weights_of_other_modules_are_refused(change, text):
    net = mlp(6, 8, 4)
    weights = dict(net.state_dict())
    change(weights)
    with pytest.raises(UserError, match=text):
        load_weights(net, weights)


def test_tied_weights_may_come_under_one_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    weights = dict(net.state_dict())
    assert set(weights) >= {"0.weight", "1.weight"}
    load_weights(net, {name: tensor for name, tensor in weights.items() if name != "0.weight"})
