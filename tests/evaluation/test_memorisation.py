"""Distances to training fields beside loops, baselines that do what they say, and models beside baselines."""

import pytest
import torch

from wsrl.evaluation.memorisation import (
    Nearest,
    VectorMemory,
    better_baselines,
    mean_of_two,
    memorisation_scores,
    nearest_vectors,
    noise_fd_at,
    train_gaussian,
    training_noise,
)

SIZE = 6
TRAINABLE = torch.tensor([True, True, False, True, True, True])


def fields(num, seed):
    drawn = torch.randn(num, SIZE, generator=torch.Generator().manual_seed(seed)) * torch.arange(1.0, SIZE + 1)
    drawn[:, ~TRAINABLE] = 0.1  # no sum of such numbers is exact
    return drawn


def generator():
    return torch.Generator().manual_seed(3)


def test_the_nearest_is_that_of_a_loop_whatever_the_blocks():
    points, references = fields(7, 0), fields(11, 1)
    found = nearest_vectors(points, references, chunk=3)
    for i, point in enumerate(points):
        distances = [float((point.double() - other.double()).norm()) for other in references]
        assert found.distances[i] == pytest.approx(min(distances), rel=1e-12)
        assert found.indices[i] == distances.index(min(distances))


def test_the_distance_of_a_copy_is_not_lost_to_rounding():
    references = fields(20, 0) + 1000.0
    moved = references.clone()
    moved[:, 0] += 2**-10  # exact at 1000 in float32
    assert nearest_vectors(references, references).distances.max() == 0
    assert nearest_vectors(moved, references).distances.tolist() == pytest.approx([2**-10] * 20, rel=1e-6)


def test_fields_that_are_not_finite_count_as_copies_and_are_no_pairs():
    points = fields(4, 0)
    points[1, 0], points[2, 3] = torch.nan, torch.inf
    found = nearest_vectors(points, fields(9, 1))
    assert found.distances[[1, 2]].tolist() == [0, 0] and found.indices[[1, 2]].tolist() == [-1, -1]
    assert set(found.closest(10).tolist()) == {0, 3}
    assert found.closest(1).tolist() == [min((0, 3), key=lambda i: float(found.distances[i]))]


def test_copies_have_a_small_ratio_and_new_fields_do_not():
    train, heldout, fresh = fields(300, 0), fields(200, 1), fields(200, 2)
    memory = VectorMemory.build(train, heldout, standardise=True)
    copies = memorisation_scores(memory.nearest(train[:20] + 1e-4), memory.heldout)
    assert copies["nearest_ratio"] < 0.01 and copies["share_nearer"] == 1.0
    new = memorisation_scores(memory.nearest(fresh), memory.heldout)
    assert new["nearest_ratio"] == pytest.approx(1.0, abs=0.1) and new["share_nearer"] < 0.06


def test_distances_are_in_deviations_of_what_varies():
    train = fields(50, 0)
    memory = VectorMemory.build(train, fields(5, 1), standardise=True)
    moved = train[:3].clone()
    moved[:, TRAINABLE] += 0.01 * train.std(dim=0)[TRAINABLE]
    assert memory.nearest(moved).distances.tolist() == pytest.approx([0.01] * 3, rel=1e-3)


def test_the_share_is_that_below_the_first_percentile():
    heldout = Nearest(torch.arange(1.0, 102.0), torch.zeros(101, dtype=torch.long))  # the first percentile is 2
    samples = Nearest(torch.tensor([0.5, 1.5, 1.9, 2.1, 50.0]), torch.zeros(5, dtype=torch.long))
    scores = memorisation_scores(samples, heldout)
    assert scores["share_nearer"] == pytest.approx(3 / 5)
    assert scores["nearest_ratio"] == pytest.approx(11.2 / 51)


@pytest.mark.parametrize(
    "make",
    [
        lambda train, num, g: training_noise(train, TRAINABLE, num, 0.5, g),
        lambda train, num, g: mean_of_two(train, TRAINABLE, num, g),
        lambda train, num, g: train_gaussian(train, TRAINABLE, num, g),
    ],
    ids=["noise", "mean", "gaussian"],
)
def test_baselines_keep_frozen_weights_and_depend_on_the_generator_alone(make):
    train = fields(9, 0)
    made = make(train, 25, generator())
    assert made.shape == (25, SIZE) and torch.equal(made[:, ~TRAINABLE], train[:1, ~TRAINABLE].expand(25, 1))
    assert torch.equal(made, make(train, 25, generator()))
    assert not torch.equal(made, make(train, 25, torch.Generator().manual_seed(4)))


def test_noise_has_the_asked_level_and_none_gives_copies():
    train = fields(1000, 0)
    copies = training_noise(train, TRAINABLE, 1000, 0.0, generator())
    assert torch.equal(copies.sort(dim=0).values, train.sort(dim=0).values)  # each once
    noise = training_noise(train, TRAINABLE, 1000, 0.3, generator()) - copies
    expected = 0.3 * train.std(dim=0)
    assert torch.allclose(noise.std(dim=0)[TRAINABLE], expected[TRAINABLE], rtol=0.1)


def test_means_lie_half_way_between_two_training_fields():
    train = fields(8, 0)
    for made in mean_of_two(train, TRAINABLE, 30, generator()):
        offsets = (train[:, None] + train[None]) / 2 - made
        i, j = divmod(int(offsets[..., TRAINABLE].abs().amax(dim=-1).argmin()), len(train))
        assert offsets[i, j, TRAINABLE].abs().max() < 1e-5 and i != j


@pytest.mark.parametrize("num_train", [4, 500])  # fewer and more than weights
def test_the_gaussian_has_the_moments_of_the_training_set(num_train):
    train = fields(num_train, 0)
    made = train_gaussian(train, TRAINABLE, 60_000, generator())
    spread = train.std(dim=0)
    unit = spread[:, None] * spread[None] + 1e-9
    assert torch.allclose((made.mean(dim=0) - train.mean(dim=0))[TRAINABLE], torch.zeros(5), atol=0.05 * SIZE)
    difference = (torch.cov(made.T) - torch.cov(train.T)) / unit
    assert difference[TRAINABLE][:, TRAINABLE].abs().max() < 0.05


def test_noise_is_read_off_at_the_models_distance():
    curve = [(0.5, 20.0), (0.0, 4.0), (1.0, 60.0)]
    assert noise_fd_at(0.25, curve) == pytest.approx(12.0)
    assert noise_fd_at(0.75, curve) == pytest.approx(40.0)
    assert noise_fd_at(2.0, curve) == 60.0 and noise_fd_at(0.0, curve) == 4.0


def test_baselines_that_are_as_far_and_no_worse_are_named():
    curve = [(0.0, 4.0), (1.0, 60.0)]
    others = {"mean_of_two": (0.9, 12.0), "gaussian": (1.2, 50.0)}
    assert better_baselines((0.95, 10.0), curve, others) == []
    assert better_baselines((0.95, 12.0), curve, others) == []  # the mean is nearer to training
    assert better_baselines((0.8, 12.0), curve, others) == ["mean_of_two"]
    assert better_baselines((1.0, 60.0), curve, others) == ["noise", "gaussian"]
