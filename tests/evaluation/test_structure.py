"""Measures of structure: against SciPy and brute force, what they don't see, and what they must see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import tiny_representation
from scipy.linalg import subspace_angles

from wsrl.evaluation.linear_paths import path_between
from wsrl.evaluation.pair_measures import compare
from wsrl.evaluation.structure import (
    banded,
    cosine_between,
    cosine_similarity,
    effective_rank,
    factor_overlap,
    mean_effective_rank,
    subspace_overlap,
    with_band,
)
from wsrl.evaluation.structure_fits import fit_from, measure_starts, starts_of
from wsrl.fields.representation import KINDS
from wsrl.fitting.engine import FitConfig, fit
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_fields(representation, num=3, seed=1):
    start = representation.initial(generator(seed), num)
    noise = generator(seed + 100)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=noise) for name, tensor in start.items()}


def pictures(num=3):
    coords, drawn = grid_coords((4, 5)), generator(9)
    form = SignalForm(in_features=2, out_features=1, grid=(4, 5))
    return [
        Signal(id=f"picture/{i}", coords=coords, values=torch.rand(20, 1, generator=drawn), form=form)
        for i in range(num)
    ]


def shapes(num=3):
    drawn = generator(9)
    form = SignalForm(in_features=3, out_features=1, value_range=(-0.1, 0.1), quantity="sdf")
    return [
        Signal(
            id=f"shape/{i}",
            coords=torch.rand(30, 3, generator=drawn) * 2 - 1,
            values=torch.rand(30, 1, generator=drawn) * 0.2 - 0.1,
            weights=torch.rand(30, generator=drawn),
            form=form,
        )
        for i in range(num)
    ]


def test_overlap_is_the_mean_squared_cosine_of_scipys_angles():
    first, second = torch.randn(2, 12, 3, generator=generator()), torch.randn(2, 12, 3, generator=generator(1))
    expected = [np.mean(np.cos(subspace_angles(a.numpy(), b.numpy())) ** 2) for a, b in zip(first, second)]
    assert subspace_overlap(first, second).numpy() == pytest.approx(expected, abs=1e-6)


def test_overlap_sees_the_space_and_not_its_basis():
    space = torch.randn(4, 10, 3, generator=generator())
    other_basis = space @ torch.randn(4, 3, 3, generator=generator(1))
    assert subspace_overlap(space, other_basis).numpy() == pytest.approx(1.0)
    turned = space.clone()
    turned[..., 0] = torch.randn(4, 10, generator=generator(2))
    assert (subspace_overlap(space, turned) < 0.99).all()


def test_overlap_of_random_spaces_is_chance_and_of_lesser_ranks_counts_the_larger():
    first, second = torch.randn(400, 20, 4, generator=generator()), torch.randn(400, 20, 4, generator=generator(1))
    assert subspace_overlap(first, second).mean().item() == pytest.approx(4 / 20, abs=0.01)
    lesser = first.clone()
    lesser[..., 2:] = 0.0
    assert subspace_overlap(first, lesser).numpy() == pytest.approx(0.5)
    assert subspace_overlap(torch.zeros(1, 20, 4), torch.zeros(1, 20, 4)).isnan().all()


def test_effective_rank_of_known_matrices():
    values = torch.tensor([3.0, 1.0])
    shares = (values / values.sum()).numpy()
    matrices = torch.stack([torch.eye(2), torch.ones(2, 2), torch.diag(values)])
    expected = [2.0, 1.0, np.exp(-(shares * np.log(shares)).sum())]
    assert effective_rank(matrices).numpy() == pytest.approx(expected, abs=1e-6)


def test_rank_of_an_adapter_is_that_of_its_product():
    representation = tiny_representation("mlora")
    weights = random_fields(representation)
    layers = {name.rpartition(".")[0] for name in weights}
    ranks = [effective_rank(weights[f"{layer}.up"] @ weights[f"{layer}.down"]) for layer in layers]
    assert torch.allclose(mean_effective_rank(representation, weights), torch.stack(ranks).mean(0))
    assert (mean_effective_rank(representation, weights) <= 2).all()


def test_cosine_sees_only_what_is_trained():
    representation = tiny_representation("lora_asym")
    first, second = (representation.layout.flatten(random_fields(representation, seed=seed)) for seed in (1, 2))
    trainable = representation.layout.trainable()
    expected = torch.nn.functional.cosine_similarity(first[:, trainable], second[:, trainable])

    def found(second):
        return cosine_similarity(representation, *map(representation.layout.unflatten, (first, second))).float()

    assert torch.allclose(found(second), expected)
    assert torch.allclose(found(torch.where(trainable, second, 100.0)), expected)
    assert not torch.allclose(found(torch.where(trainable, 100.0, second)), expected)


def test_cosine_between_fields_by_brute_force():
    representation = tiny_representation("mlp")
    weights = random_fields(representation)
    rows = [{name: tensor[i : i + 1] for name, tensor in weights.items()} for i in range(3)]
    expected = [
        np.mean([cosine_similarity(representation, rows[i], rows[j]).item() for j in range(3) if j != i])
        for i in range(3)
    ]
    assert cosine_between(representation, weights).numpy() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_of_factors(kind):
    representation = tiny_representation(kind)
    start = representation.initial()
    first, second = random_fields(representation), random_fields(representation, seed=2)
    same, chance = factor_overlap(representation, (first, first), (start, start))
    other, _ = factor_overlap(representation, (first, second), (start, start))
    assert same.numpy() == pytest.approx(1.0)
    assert 0 < chance < 1 and (other < 0.95).all()


def test_overlap_does_not_count_what_is_frozen_in_both():
    representation = tiny_representation("lora_asym", mask_fraction=0.5)
    pair = [random_fields(representation, num=200, seed=seed) for seed in (1, 2)]
    starts = (representation.initial(), representation.initial())
    found, _ = factor_overlap(representation, pair, starts)
    for spec in representation.layout:  # the same large values in both, as in a real build
        for weights in pair:
            weights[spec.name] = torch.where(spec.trainable(), weights[spec.name], 50.0)
    assert torch.allclose(factor_overlap(representation, pair, starts)[0], found)


@pytest.mark.parametrize("signals", [pictures(), shapes()], ids=["pictures", "shapes"])
def test_the_path_is_what_evaluating_between_gives(signals):
    dimensions = signals[0].coords.shape[1]
    representation = tiny_representation("mlp", in_features=dimensions)
    first, second = random_fields(representation), random_fields(representation, seed=2)
    path = path_between(representation, signals, first, second, num_points=5)
    for place, along in ((0, 0.0), (1, 0.25), (4, 1.0)):
        for i, signal in enumerate(signals):
            between = {name: (1 - along) * first[name][[i]] + along * second[name][[i]] for name in first}
            wrong = representation.evaluate(between, signal.coords)[0] - signal.values
            if signal.form.is_shape:  # beyond an end of the range costs nothing; no target lies at one
                assert (signal.values.abs() < 0.1).all()
                wrong = wrong * signal.weights.sqrt()[:, None]
            assert path.losses[i, place] == pytest.approx(wrong.square().mean().item(), rel=1e-4)
    chord = np.linspace(0, 1, 5) * (path.losses[:, -1:] - path.losses[:, :1]) + path.losses[:, :1]
    assert path.barriers == pytest.approx((path.losses - chord).max(1))


def test_a_field_has_no_barrier_to_itself_but_one_to_its_permuted_copy():
    representation = tiny_representation("mlp")
    weights, signals = random_fields(representation), pictures()
    values = representation.evaluate(weights, signals[0].coords) + 0.05 * torch.randn(3, 20, 1, generator=generator())
    signals = [replace(signal, values=target) for signal, target in zip(signals, values)]  # what the fields fit
    order = torch.arange(7, -1, -1)
    permuted = dict(weights) | {
        "layers.0.weight": weights["layers.0.weight"][:, order],
        "layers.0.bias": weights["layers.0.bias"][:, order],
        "layers.1.weight": weights["layers.1.weight"][:, :, order],
    }
    start = representation.initial()
    same = compare(representation, signals, (weights, weights), (start, start))
    other = compare(representation, signals, (weights, permuted), (start, start))
    assert same["barrier"] == pytest.approx(0, abs=1e-6) and same["cosine"] == pytest.approx(1)
    assert same["connected"].all() and same["psnr_path"] == pytest.approx(same["psnr"], abs=1e-3)
    assert other["psnr"] == pytest.approx(same["psnr"], abs=1e-2)  # the same functions
    assert (other["barrier"] > 1e-3).all() and (other["cosine"] < 0.9).all()
    assert other["barrier_relative"] == pytest.approx(other["barrier"] / other["loss"])


def test_bands_hold_the_truth_in_about_95_of_100_draws():
    drawn = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        band = with_band("x", drawn.normal(size=40))
        assert band["x_low"] < band["x"] < band["x_high"]
        held += band["x_low"] < 0 < band["x_high"]
    assert 86 <= held < 100


def test_bands_repeat_and_a_chance_level_has_none():
    measures = {"x": np.arange(9.0), "x_chance": np.full(9, 0.3), "same": np.full(9, 0.1)}
    found = banded(measures, seed=3)
    assert found == banded(measures, seed=3) != banded(measures, seed=4)
    assert found["x_chance"] == 0.3 and "x_chance_low" not in found
    assert found["same_low"] == found["same_high"] == 0.1


@pytest.fixture(scope="module")
def fitted():
    representation = tiny_representation("mlora_asym")
    return representation, pictures(6), FitConfig(steps=40, learning_rate=0.05, batch_size=3)


def test_fits_from_the_usual_start_are_those_of_a_build_and_others_are_not(fitted):
    representation, signals, config = fitted
    usual = {r.index: r for r in fit(representation, ((i, s.id, s) for i, s in enumerate(signals)), config)}
    expected = representation.layout.flatten(
        {name: torch.stack([usual[i].weights[name] for i in range(6)]) for name in usual[0].weights}
    )
    same, other = (
        representation.layout.flatten(
            fit_from(representation, signals, config, starts_of(representation, distance, 0)).weights
        )
        for distance in (0.0, 1.0)
    )
    assert torch.equal(same, expected)
    assert not torch.allclose(other, expected, atol=0.1)


def test_the_farther_the_starts_the_less_the_fits_have_in_common(fitted):
    representation, signals, config = fitted
    found = measure_starts(
        representation,
        signals,
        lambda distance: fit_from(representation, signals, config, starts_of(representation, distance, 0)),
        (0.0, 0.1, 1.0),
        seed=0,
        num_points=5,
    )
    assert found["lambda_0.num"] == 6 and found["lambda_0.cosine"] == pytest.approx(1)
    assert found["lambda_0.barrier"] == pytest.approx(0, abs=1e-9)
    for distance in (0.0, 0.1, 1.0):
        first, second = (representation.layout.flatten(starts_of(representation, d, 0)) for d in (0.0, distance))
        cosine = torch.nn.functional.cosine_similarity(first, second, dim=0).item()
        assert found[f"lambda_{distance:g}.cosine_start"] == pytest.approx(cosine, abs=1e-5)
    for measure in ("cosine", "cosine_start", "overlap", "psnr_path"):
        assert found["lambda_0.1." + measure] > found["lambda_1." + measure]
    assert found["lambda_1.barrier_low"] > found["lambda_0.1.barrier_high"]


def test_independent_starts_are_not_the_first_one_whatever_the_seed(fitted):
    representation = fitted[0]
    first = representation.layout.flatten(representation.initial())
    for seed in (representation.config.seed, 1):
        other = representation.layout.flatten(starts_of(representation, 1.0, seed))
        assert not torch.allclose(first, other, atol=0.1)


def test_a_signal_that_cannot_be_fitted_is_left_out(fitted):
    representation, signals, config = fitted
    broken = Signal(
        id="broken", coords=signals[0].coords, values=signals[0].values * float("nan"), form=signals[0].form
    )
    fits = fit_from(representation, [signals[0], broken, signals[1]], config, representation.initial())
    assert fits.ids == [signals[0].id, signals[1].id]
