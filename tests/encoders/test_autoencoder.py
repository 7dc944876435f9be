"""The weight autoencoder: what enters and leaves, standardised latents, and that it is saved whole."""

import pytest
import torch
from contracts import tiny_representation
from encoder_contract import factor_layout, random_fields, siren_layout

from wsrl.encoders.autoencoder import WeightAutoencoder, open_autoencoder
from wsrl.encoders.latents import READERS, WRITERS
from wsrl.encoders.normalisation import STD_FLOOR, WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.representation import KINDS

SMALL = {"latent_tokens": 3, "latent_channels": 2, "width": 8, "depth": 1, "decoder_depth": 1, "heads": 2}
UNF = {"channels": 4, "hidden_size": 8, "embedding_size": 6}
# The same sums in batches of other sizes.
ROUNDING = 1e-5


def autoencoder(layout, fields=None, **options):
    """A small network with random numbers in every parameter, and the statistics of some fields."""
    given = SMALL | ({"encoder_options": UNF} if options.get("encoder") == "unf" else {}) | options
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WeightAutoencoder(layout=layout.to_json(), **given)
        for parameter in network.writer.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape)
    fields = random_fields(layout) if fields is None else fields
    network.statistics.load_state_dict(WeightStatistics.from_batches(layout, [fields]).state_dict())
    return network.eval().requires_grad_(False)


every_reader = pytest.mark.parametrize("encoder", READERS)


@every_reader
@pytest.mark.parametrize("decoder", WRITERS)
@pytest.mark.parametrize("kl", [False, True])
def test_it_is_saved_and_loaded_bit_for_bit(adapter_layout, tmp_path, encoder, decoder, kl):
    network = autoencoder(adapter_layout, encoder=encoder, decoder=decoder, kl=kl)
    fields = random_fields(adapter_layout)
    network.measure_latents([fields])
    network.save_pretrained(tmp_path / "model")
    again = open_autoencoder(tmp_path, adapter_layout)
    assert network.state_dict().keys() == again.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert torch.equal(network.encode(fields), again.encode(fields))
    loaded = WeightAutoencoder.from_pretrained(tmp_path / "model").eval()
    for name, tensor in network(fields).items():
        assert torch.equal(tensor, again(fields)[name]) and torch.equal(tensor, loaded(fields)[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [(2, 1), (3, 1)])
def test_fields_of_every_kind_go_through_and_frozen_entries_come_back(kind, dimensions):
    representation = tiny_representation(kind, in_features=dimensions[0], out_features=dimensions[1])
    layout, mask = representation.layout, representation.layout.trainable()
    start = layout.flatten(representation.initial())
    noise = torch.randn(9, len(start), generator=torch.Generator().manual_seed(1))
    fields = layout.unflatten(start + 0.1 * noise * mask)
    network = autoencoder(layout, fields)
    again = layout.flatten(network(fields))
    assert torch.equal(again[:, ~mask], start[~mask].expand(9, -1))
    assert not torch.equal(again[0, mask], again[1, mask])


@every_reader
def test_frozen_entries_never_enter(adapter_layout, encoder):
    network, fields = autoencoder(adapter_layout, encoder=encoder), random_fields(adapter_layout)
    flat = adapter_layout.flatten(fields)
    other = adapter_layout.unflatten(torch.where(adapter_layout.trainable(), flat, flat + 1.0))
    assert torch.equal(network.encode(fields), network.encode(other))
    moved = adapter_layout.unflatten(torch.where(adapter_layout.trainable(), flat + 0.1, flat))
    assert not torch.allclose(network.encode(fields), network.encode(moved))


@pytest.mark.parametrize("decoder", WRITERS)
def test_it_starts_at_the_mean_field(decoder):
    layout = siren_layout()
    fields = random_fields(layout)
    network = WeightAutoencoder(layout=layout.to_json(), decoder=decoder, **SMALL)
    network.statistics.load_state_dict(WeightStatistics.from_batches(layout, [fields]).state_dict())
    mean = layout.flatten(network(fields))
    assert torch.equal(mean, network.statistics.mean.expand_as(mean))
    torch.testing.assert_close(mean[0], layout.flatten(fields).mean(0))


@every_reader
def test_latents_of_the_measured_fields_are_standardised(encoder):
    layout = factor_layout()
    fields = random_fields(layout, num=40)
    network = autoencoder(layout, fields, encoder=encoder)
    raw = network.encode(fields)  # nothing is measured yet: mean 0 and deviation 1 are taken out
    halves = [{name: tensor[part] for name, tensor in fields.items()} for part in (slice(0, 13), slice(13, None))]
    found = network.measure_latents(halves)
    assert found["latent_std_mean"] == pytest.approx(float(raw.std(0, correction=0).mean()), rel=1e-4)
    assert found["latent_std_min"] <= found["latent_std_mean"] <= found["latent_std_max"]
    vectors = network.encode(fields)
    assert vectors.shape == (40, network.vector_size) == (40, 6)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(vectors.std(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)
    assert network.token_options == {"latent": [3, 2]}


def test_a_latent_number_that_never_varies_is_divided_by_the_floor():
    layout = factor_layout()
    fields = random_fields(layout)
    network = autoencoder(layout, fields)
    network.reader.out.weight[1] = 0.0
    network.reader.out.bias[1] = 2.0
    found = network.measure_latents([fields])
    assert found["latent_num_dead"] == network.config.latent_tokens
    deviation = network.latent_std.unflatten(0, (3, 2))
    assert bool((deviation[:, 1] < 10 * STD_FLOOR * deviation[:, 0].max()).all()) and bool((deviation > 0).all())
    assert network.encode(fields).unflatten(1, (3, 2))[..., 1].abs().max() < 1e-2


def test_one_field_equals_its_row(adapter_layout):
    network, fields = autoencoder(adapter_layout), random_fields(adapter_layout)
    one = {name: tensor[4:5] for name, tensor in fields.items()}
    torch.testing.assert_close(network.encode(one), network.encode(fields)[4:5], atol=ROUNDING, rtol=ROUNDING)


def test_decoding_is_differentiable_in_the_latent(adapter_layout):
    network = autoencoder(adapter_layout)
    latent = torch.zeros(2, network.vector_size, requires_grad=True)
    adapter_layout.flatten(network.decode(latent))[:, adapter_layout.trainable()].square().sum().backward()
    assert bool((latent.grad != 0).all())


def test_wrong_options_and_folders_are_refused(adapter_layout, tmp_path):
    with pytest.raises(UserError, match="encoder is 'mlp'"):
        autoencoder(adapter_layout, encoder="mlp")
    with pytest.raises(UserError, match="unknown option 'chanels'"):
        WeightAutoencoder(layout=adapter_layout.to_json(), encoder="unf", encoder_options={"chanels": 3})
    with pytest.raises(UserError, match="holds no weight autoencoder"):
        open_autoencoder(tmp_path)
    autoencoder(adapter_layout).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="another layout"):
        open_autoencoder(tmp_path, siren_layout())
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be loaded"):
        open_autoencoder(tmp_path, adapter_layout)
