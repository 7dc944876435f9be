"""Statistics of weights: streaming moments, the way in and out, what masks keep out."""

import pytest
import torch

from wsrl.encoders.normalisation import STD_FLOOR, WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.layout import Layout, TensorSpec


def masked_layout():
    trainable = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) > 0.3
    frozen = TensorSpec.pack_frozen(trainable)
    down = TensorSpec(
        name="layers.0.down", shape=(3, 5), axes=("r", None), group="layers.0", token_axis=0, frozen=frozen
    )
    up = TensorSpec(name="layers.0.up", shape=(4, 3), axes=(None, "r"), group="layers.0", token_axis=1)
    return Layout((down, up))


def random_weights(layout, num, seed=0):
    """Fields that share their frozen entries."""
    generator = torch.Generator().manual_seed(seed)
    flat = 3.0 + 2.0 * torch.randn(num, layout.num_weights, generator=generator)
    frozen = ~layout.trainable()
    flat[:, frozen] = flat[:1, frozen]
    return layout.unflatten(flat)


def cut(weights, sizes):
    start = 0
    for size in sizes:
        yield {name: tensor[start : start + size] for name, tensor in weights.items()}
        start += size


def test_streamed_moments_equal_the_direct_ones():
    layout = masked_layout()
    weights = random_weights(layout, 50)
    statistics = WeightStatistics.from_batches(layout, cut(weights, (7, 1, 30, 0, 12)))
    direct = layout.flatten(weights)[:, layout.trainable()].double()
    torch.testing.assert_close(statistics.mean, direct.mean(0).float())
    torch.testing.assert_close(statistics.std, direct.std(0, correction=0).float())


def test_normalised_fields_have_mean_zero_and_variance_one():
    layout = masked_layout()
    weights = random_weights(layout, 200)
    vector = WeightStatistics.from_batches(layout, [weights]).normalise(weights)
    assert vector.shape == (200, layout.num_trainable)
    torch.testing.assert_close(vector.mean(0), torch.zeros(layout.num_trainable), atol=1e-5, rtol=0)
    torch.testing.assert_close(vector.var(0, correction=0), torch.ones(layout.num_trainable))


def test_out_and_in_again_is_the_inverse_and_frozen_entries_are_bit_identical():
    layout = masked_layout()
    weights = random_weights(layout, 20)
    statistics = WeightStatistics.from_batches(layout, [weights])
    back = statistics.denormalise(statistics.normalise(weights))
    for spec in layout:
        torch.testing.assert_close(back[spec.name], weights[spec.name])
        frozen = ~spec.trainable()
        assert torch.equal(back[spec.name][:, frozen], weights[spec.name][:, frozen])


def test_masked_entries_never_enter_the_vector():
    layout = masked_layout()
    weights = random_weights(layout, 20)
    statistics = WeightStatistics.from_batches(layout, [weights])
    flat = layout.flatten(weights)
    poisoned = flat.clone()
    poisoned[:, ~layout.trainable()] = float("nan")
    assert torch.equal(statistics.normalise(layout.unflatten(poisoned)), statistics.normalise(weights))


def test_a_constant_coordinate_is_divided_by_the_floor():
    layout = masked_layout()
    weights = random_weights(layout, 40)
    weights["layers.0.up"][:, 0, 0] = 1.5
    statistics = WeightStatistics.from_batches(layout, [weights])
    rms = layout.flatten(weights)[:, layout.trainable()].var(0, correction=0).mean().sqrt()
    torch.testing.assert_close(statistics.std.min(), STD_FLOOR * rms)
    torch.testing.assert_close(
        statistics.denormalise(statistics.normalise(weights))["layers.0.up"], weights["layers.0.up"]
    )


def test_identical_fields_normalise_to_zero():
    layout = masked_layout()
    weights = {name: tensor.expand(5, *tensor.shape[1:]) for name, tensor in random_weights(layout, 1).items()}
    assert torch.equal(
        WeightStatistics.from_batches(layout, [weights]).normalise(weights), torch.zeros(5, layout.num_trainable)
    )


def test_statistics_are_buffers_and_reload():
    layout = masked_layout()
    weights = random_weights(layout, 20)
    statistics = WeightStatistics.from_batches(layout, [weights])
    fresh = WeightStatistics(layout)
    fresh.load_state_dict(statistics.state_dict())
    assert not list(fresh.parameters())
    assert torch.equal(fresh.normalise(weights), statistics.normalise(weights))


def test_no_fields_and_nan_are_refused():
    layout = masked_layout()
    with pytest.raises(UserError, match="no fields to measure"):
        WeightStatistics.from_batches(layout, [])
    weights = random_weights(layout, 4)
    weights["layers.0.up"][2, 1, 1] = float("nan")
    with pytest.raises(UserError, match="NaN or infinite"):
        WeightStatistics.from_batches(layout, [weights])
