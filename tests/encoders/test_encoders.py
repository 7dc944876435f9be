"""All kinds of encoders keep one contract; the invariant ones are, and see what is no symmetry."""

from dataclasses import replace

import encoder_contract as contract
import pytest
import torch
from encoder_contract import INVARIANT, factor_layout, make_encoder, random_fields, siren_layout

from wsrl.encoders.normalisation import WeightStatistics, shared_statistics
from wsrl.encoders.registry import ENCODERS, build_encoder, encoder_config, load_encoder
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.symmetry.spec.spec import PermutationSpec

LAYOUTS = {"siren": siren_layout(), "factors": factor_layout()}
every_kind = pytest.mark.parametrize("kind", ENCODERS)


@pytest.fixture(params=[*LAYOUTS, "masked"])
def layout(request, adapter_layout):
    return LAYOUTS.get(request.param, adapter_layout)


@every_kind
def test_shape_and_determinism(kind, layout):
    contract.check_shape_and_determinism(kind, layout)


@every_kind
def test_one_field_equals_its_row(kind, layout):
    contract.check_one_field_equals_its_row(kind, layout)


@every_kind
def test_it_is_saved_whole(kind, layout, tmp_path):
    contract.check_it_is_saved_whole(kind, layout, tmp_path / "encoder")


@every_kind
def test_gradients_reach_every_parameter(kind, layout):
    contract.check_gradients_reach_every_parameter(kind, layout)


@every_kind
def test_frozen_entries_never_matter(kind, adapter_layout):
    contract.check_frozen_entries_never_matter(kind, adapter_layout)


@pytest.mark.parametrize("kind", INVARIANT)
@pytest.mark.parametrize("name", LAYOUTS)
def test_permutations_of_the_layout_change_nothing(kind, name):
    contract.check_it_is_invariant(kind, LAYOUTS[name])


@pytest.mark.parametrize("kind", INVARIANT)
@pytest.mark.parametrize("name", LAYOUTS)
def test_statistics_per_entry_give_up_the_invariance(kind, name):
    contract.check_the_same_permutation_is_seen(kind, LAYOUTS[name], normalisation="entry")


@pytest.mark.parametrize("kind, options", [("mlp", {}), ("mlp", {"normalisation": "tensor"}), ("transformer", {})])
def test_the_others_see_a_permutation(kind, options):
    contract.check_the_same_permutation_is_seen(kind, siren_layout(), **options)


@pytest.mark.parametrize("kind", ["deepsets", "unf"])
def test_moving_the_neurons_of_one_tensor_alone_is_seen(kind):
    """Deep Sets see no tie between two tensors of other permutations; they see one between tensors of the same."""
    layout = siren_layout()
    weights, encoder = random_fields(layout, 6, seed=1), make_encoder(kind, layout)
    broken = weights | {"layers.0.bias": weights["layers.0.bias"].roll(1, 1)}
    assert contract.distance(encoder(broken), encoder(weights)) > 1e-4


def test_the_unf_sees_ties_that_deep_sets_and_statistics_do_not():
    layout = siren_layout()
    weights = random_fields(layout, 6, seed=1)
    names = ("layers.0.weight", "layers.0.bias")
    broken = weights | {name: weights[name].roll(1, 1) for name in names}  # the next layer keeps its order
    moved = {kind: make_encoder(kind, layout) for kind in INVARIANT}
    moved = {kind: contract.distance(encoder(broken), encoder(weights)) for kind, encoder in moved.items()}
    assert moved["unf"] > 1e-4 and moved["deepsets"] < contract.ROUNDING and moved["statnn"] < contract.ROUNDING


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_the_transformer_without_positions_is_invariant_where_tokens_keep_their_content(pooling):
    options = {"positions": False, "normalisation": "tensor", "pooling": pooling}
    contract.check_it_is_invariant("transformer", factor_layout(), **options)
    contract.check_the_same_permutation_is_seen("transformer", siren_layout(), **options)
    contract.check_the_same_permutation_is_seen("transformer", factor_layout(), **options | {"positions": True})


def test_reading_each_place_gives_up_the_invariance_and_reaches_every_parameter():
    options = {"positions": False, "normalisation": "tensor", "pooling": "places"}
    contract.check_the_same_permutation_is_seen("transformer", factor_layout(), **options)
    encoder = make_encoder("transformer", factor_layout(), pooling="places")
    encoder(random_fields(factor_layout(), 4)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_channels_of_entries_give_up_the_invariance():
    contract.check_the_same_permutation_is_seen("unf", siren_layout(), entry_channels=3)


def test_shared_statistics_are_those_of_exchangeable_entries_together():
    layout = siren_layout()
    weights = random_fields(layout, 40)
    statistics = shared_statistics(WeightStatistics.from_batches(layout, [weights]))
    mean, std = layout.unflatten(statistics.mean), layout.unflatten(statistics.std)
    for name, over in (("layers.0.weight", (0, 1)), ("layers.1.weight", (0, 1, 2)), ("layers.1.bias", (0, 1))):
        expected = weights[name].mean(over), weights[name].std(over, correction=0)
        assert torch.allclose(mean[name], expected[0].expand(mean[name].shape), atol=1e-5)
        assert torch.allclose(std[name], expected[1].expand(std[name].shape), atol=1e-5)
    assert mean["layers.0.weight"][0].unique().numel() == 2, "each coordinate keeps a mean of its own"
    permuted = PermutationSpec.from_layout(layout).augment(weights, torch.Generator().manual_seed(1))
    vectors = [layout.unflatten(statistics.normalise(fields)) for fields in (weights, permuted)]
    again = PermutationSpec.from_layout(layout).augment(vectors[0], torch.Generator().manual_seed(1))
    assert all(torch.allclose(again[name], vectors[1][name], atol=1e-6) for name in again)


def test_without_permutations_there_is_nothing_to_share(adapter_layout):
    layout = Layout(tuple(replace(spec, axes=(None, None)) for spec in adapter_layout))  # as masks leave them
    statistics = WeightStatistics.from_batches(layout, [random_fields(layout)])
    shared = shared_statistics(statistics)
    assert torch.allclose(shared.mean, statistics.mean) and torch.allclose(shared.std, statistics.std)


@pytest.mark.parametrize(
    "kind, options, wrong, allowed",
    [
        ("mpl", {}, "unknown encoder 'mpl'", "mlp, deepsets, statnn, transformer, unf"),
        ("mlp", {"widht": 3}, "unknown option 'widht'", "normalisation, dropout, hidden"),
        ("mlp", {"hidden": 8}, "hidden is 8", "a list of whole numbers"),
        ("mlp", {"hidden": [0]}, r"hidden is \(0,\)", "1 or more"),
        ("statnn", {"hidden": []}, r"hidden is \(\)", "at least one"),
        ("deepsets", {"width": "big"}, "width is 'big'", "a whole number"),
        ("deepsets", {"width": True}, "width is True", "a whole number"),
        ("deepsets", {"dropout": 1}, "dropout is 1.0", "0 up to, not including, 1"),
        ("transformer", {"heads": 3}, "width is 128", "a multiple of heads, which is 3"),
        ("transformer", {"pooling": "max"}, "pooling is 'max'", "token, mean, places"),
        ("transformer", {"positions": 1}, "positions is 1", "true or false"),
        ("unf", {"normalisation": "batch"}, "normalisation is 'batch'", "entry, tensor"),
        ("unf", {"channels": 0}, "channels is 0", "1 or more"),
    ],
)
def test_wrong_options_are_refused(kind, options, wrong, allowed):
    with pytest.raises(UserError, match=f"{wrong}.* Allowed: .*{allowed}.* What to do: "):
        encoder_config(kind, options)


def test_no_hidden_layer_makes_a_linear_classifier():
    layout = siren_layout()
    encoder = make_encoder("mlp", layout, hidden=[])
    weights = random_fields(layout, 3)
    assert encoder.num_parameters == 0 and encoder.embedding_size == layout.num_trainable
    assert torch.equal(encoder(weights), encoder.statistics.normalise(weights))


def test_a_folder_without_an_encoder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"does not hold an encoder of weights.* What to do: "):
        load_encoder(tmp_path)
    make_encoder("mlp", siren_layout()).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text().replace('"kind": "mlp"', '"kind": "perceptron"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="unknown encoder 'perceptron'"):
        load_encoder(tmp_path)


def test_the_statistics_of_the_data_stay_as_they_are():
    statistics = WeightStatistics.from_batches(siren_layout(), [random_fields(siren_layout())])
    before = statistics.mean.clone()
    build_encoder("deepsets", {}, statistics)
    assert torch.equal(statistics.mean, before)
