"""Measures of adapters that no gauge changes: against brute force, and beside the raw ones, which it changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import in_double, tiny_representation

from wsrl.adapters.scaling import scale_weight
from wsrl.evaluation.pair_measures import compare
from wsrl.evaluation.product_space import product_cosine, product_cosine_between, product_line
from wsrl.evaluation.structure import cosine_similarity
from wsrl.evaluation.structure_fits import fit_from_own_starts, measure_pair
from wsrl.fields.gauge import factor_pairs
from wsrl.fields.network import apply_layers
from wsrl.fitting.engine import FitConfig, fit
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

FREE = [("lora", "exp"), ("mlora", "exp"), ("mlora", "one_plus"), ("mlora", "product")]
ADAPTERS = [*FREE, ("lora_asym", "exp"), ("mlora_asym", "exp")]
GAUGE_FREE = ("cosine_ba", "cosine_ba_others", "barrier_ba", "psnr_path_ba", "overlap", "overlap_others")
# Float32 rounding of factors that random matrices have moved.
ROUNDING = 1e-4


def fields(representation, num=4, seed=1):
    """Weights ``(N, *shape)`` away from the start; frozen entries as every field has them."""
    generator, start = torch.Generator().manual_seed(seed), representation.initial()
    return {
        spec.name: torch.where(
            spec.trainable(),
            start[spec.name] + 0.4 * torch.randn(num, *spec.shape, generator=generator),
            start[spec.name],
        )
        for spec in representation.layout
    }


def in_another_gauge(representation, weights, seed=5):
    generator, found = torch.Generator().manual_seed(seed), dict(weights)
    for pair in factor_pairs(representation.layout):
        down, up = weights[pair.down.name].double(), weights[pair.up.name].double()
        left, right = (torch.linalg.qr(torch.randn(len(up), 2, 2, generator=generator).double())[0] for _ in range(2))
        matrix = left @ torch.diag_embed(0.5 + torch.rand(len(up), 2, generator=generator).double()) @ right
        found[pair.down.name] = torch.linalg.solve(matrix, down).float()
        found[pair.up.name] = (up @ matrix).float()
    return found


def pictures(num=4):
    coords, drawn = grid_coords((4, 5)), torch.Generator().manual_seed(9)
    form = SignalForm(in_features=2, out_features=1, grid=(4, 5))
    values = [torch.rand(20, 1, generator=drawn) for _ in range(num)]
    return [Signal(id=f"picture/{i}", coords=coords, values=value, form=form) for i, value in enumerate(values)]


def shown_by(representation, weights):
    """What fields show with a little noise, as signals: the loss is small there, so that it rises elsewhere."""
    coords, form = grid_coords((4, 5)), SignalForm(in_features=2, out_features=1, grid=(4, 5))
    values = representation.evaluate(weights, coords).detach()
    values = values + 0.05 * torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
    return [Signal(id=f"shown/{i}", coords=coords, values=value, form=form) for i, value in enumerate(values)]


def by_hand(representation, weights):
    """All products of each field in one vector."""
    pairs = factor_pairs(representation.layout)
    rows = []
    for i in range(len(weights[pairs[0].up.name])):
        products = [weights[p.up.name][i].double() @ weights[p.down.name][i].double() for p in pairs]
        rows.append(torch.cat([product.flatten() for product in products]))
    return torch.stack(rows)


@pytest.mark.parametrize(("kind", "form"), ADAPTERS)
def test_cosines_are_those_of_the_products(kind, form):
    representation = tiny_representation(kind, form)
    first, second = fields(representation), fields(representation, seed=2)
    one, other = (by_hand(representation, weights) for weights in (first, second))
    expected = [float(a @ b / a.norm() / b.norm()) for a, b in zip(one, other)]
    assert product_cosine(representation.layout, first, second).tolist() == pytest.approx(expected)
    between = product_cosine_between(representation.layout, first)
    others = [float(one[0] @ one[j] / one[0].norm() / one[j].norm()) for j in range(1, 4)]
    assert float(between[0]) == pytest.approx(np.mean(others))
    start = representation.initial()
    assert float(product_cosine(representation.layout, start, start)) in (0.0, pytest.approx(1.0))


@pytest.mark.parametrize(("kind", "form"), ADAPTERS)
def test_the_line_is_straight_in_the_products(kind, form):
    representation = in_double(tiny_representation(kind, form))
    weights = [{name: tensor.double() for name, tensor in fields(representation, seed=seed).items()} for seed in (1, 2)]
    begin, end = product_line(representation.layout, *weights)
    coords = grid_coords((4, 5)).double()
    for share in (0.0, 0.3, 1.0):
        between = {name: torch.lerp(tensor, end[name], share) for name, tensor in begin.items()}
        found = representation.evaluate(between, coords)
        layers, biases = [], []
        for part in representation.parts():
            biases.append(part.bias)
            if part.down is None:
                layers.append(part.weight)
                continue
            first, second = (each[part.up] @ each[part.down] for each in weights)
            product = (1 - share) * first + share * second  # (N, out, in)
            if part.form == "add":
                layers.append(part.weight + product)
            else:
                layers.append(scale_weight(part.weight, torch.eye(product.shape[-1]).double(), product, part.form))
        expected = apply_layers(representation.field_config, representation.encoding(coords), layers, biases).mT
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "form"), FREE)
def test_a_gauge_changes_raw_measures_and_no_other(kind, form):
    representation = tiny_representation(kind, form)
    first, second = fields(representation), fields(representation, seed=2)
    signals, start = shown_by(representation, first), representation.initial()
    usual = compare(representation, signals, (first, second), (start, start), 7)
    moved = compare(representation, signals, (first, in_another_gauge(representation, second)), (start, start), 7)
    for name in GAUGE_FREE:
        np.testing.assert_allclose(moved[name], usual[name], rtol=ROUNDING, atol=ROUNDING, err_msg=name)
    assert np.abs(moved["cosine"] - usual["cosine"]).max() > 0.05
    assert np.abs(moved["cosine_canonical"] - usual["cosine_canonical"]).max() < 0.01
    assert np.abs(moved["barrier"] - usual["barrier"]).max() > 1e-4


@pytest.mark.parametrize(("kind", "form"), FREE)
def test_a_field_has_no_barrier_to_itself_in_another_gauge(kind, form):
    representation = tiny_representation(kind, form)
    weights, start = fields(representation), representation.initial()
    signals = shown_by(representation, weights)
    pair = weights, in_another_gauge(representation, weights)
    found = compare(representation, signals, pair, (start, start), 7)
    assert found["cosine_ba"] == pytest.approx(np.ones(4), abs=1e-5)
    assert found["cosine_canonical"] == pytest.approx(np.ones(4), abs=1e-3)
    assert found["barrier_ba"].max() < 1e-5 < 1e-3 < found["barrier"].max()
    assert found["connected_ba"].tolist() == [1.0] * 4
    assert found["cosine"].max() < 0.999 and np.abs(found["cosine_ba_others"]).max() < 0.9


def test_shapes_on_points_of_their_own_are_compared_too():
    representation = tiny_representation("mlora", in_features=3)
    weights, start = fields(representation, num=2), representation.initial()
    form = SignalForm(in_features=3, out_features=1, value_range=(-0.1, 0.1), quantity="sdf")
    coords = torch.rand(2, 30, 3, generator=torch.Generator().manual_seed(4)) * 2 - 1
    values = representation.evaluate(weights, coords).detach() + 0.01
    signals = [Signal(id=f"shape/{i}", coords=coords[i], values=values[i], form=form) for i in range(2)]
    found = compare(representation, signals, (weights, in_another_gauge(representation, weights)), (start, start), 7)
    assert found["barrier_ba"].max() < 1e-5 < 1e-3 < found["barrier"].max()


def test_standalone_networks_and_single_signals_have_fewer_measures():
    representation = tiny_representation("mlp")
    weights = {name: tensor + 0.1 for name, tensor in representation.initial(num=2).items()}
    start = representation.initial()
    found = compare(representation, pictures(2), (weights, weights), (start, start), 5)
    assert "cosine_others" in found and not any("_ba" in name or "canonical" in name for name in found)
    own = {name: tensor.expand(2, *tensor.shape) for name, tensor in start.items()}
    again = compare(representation, pictures(2), (weights, weights), (own, own), 5)
    assert all(np.array_equal(found[name], again[name]) for name in found)
    adapter = tiny_representation("lora")
    weights = fields(adapter, num=1)
    found = compare(adapter, pictures(1), (weights, weights), (adapter.initial(), adapter.initial()), 5)
    assert "barrier_ba" in found and not any(name.endswith("others") for name in found)


def test_others_are_the_neighbouring_signals():
    representation = tiny_representation("lora")
    first, second = fields(representation), fields(representation, seed=2)
    start = representation.initial()
    found = compare(representation, pictures(), (first, second), (start, start), 5)
    for i, j in ((0, 1), (3, 0)):
        pair = [{name: tensor[k] for name, tensor in weights.items()} for weights, k in ((first, i), (second, j))]
        assert found["cosine_others"][i] == pytest.approx(float(cosine_similarity(representation, *pair)))
        assert found["cosine_ba_others"][i] == pytest.approx(float(product_cosine(representation.layout, *pair)))


def test_own_starts_are_those_of_a_build_with_random_starts():
    representation, signals = tiny_representation("mlora_asym"), pictures()
    config = FitConfig(steps=30, learning_rate=0.05, batch_size=3, seed=4)
    found = fit_from_own_starts(representation, signals, config)
    random = tiny_representation("mlora_asym", start="random")
    expected = {r.index: r for r in fit(random, ((i, s.id, s) for i, s in enumerate(signals)), config)}
    assert found.ids == [signal.id for signal in signals]
    for name, tensor in found.weights.items():
        assert torch.equal(tensor, torch.stack([expected[i].weights[name] for i in range(4)]))
    still = fit_from_own_starts(representation, signals, replace(config, steps=1, learning_rate=1e-6))
    for name, tensor in still.weights.items():
        torch.testing.assert_close(tensor, found.start[name], rtol=0, atol=1e-5)
    assert not torch.equal(found.start["layers.0.down"][0], found.start["layers.0.down"][1])
    other = fit_from_own_starts(representation, signals, replace(config, seed=5))
    measures = measure_pair(representation, signals, (found, other), seed=0, num_points=5)
    assert measures["num"] == 4 and abs(measures["cosine_start"]) < 0.9
    assert {"cosine_ba", "cosine_ba_low", "overlap_chance", "barrier_ba", "barrier_ba_high"} <= measures.keys()
