"""What every encoder must do; run for each kind by ``tests/encoders/test_encoders.py``.

Letters: B fields, V trainable weights.
"""

import json

import torch

from wsrl.encoders.encoder import WeightEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.registry import build_encoder, load_encoder
from wsrl.fields.layout import Layout, TensorSpec
from wsrl.symmetry.spec.spec import PermutationSpec

# Embeddings are of order 1; float32 rounds at 1e-7 and a permuted sum adds in another order.
ROUNDING = 1e-5

OPTIONS = {
    "mlp": {"hidden": [12, 8]},
    "deepsets": {"width": 8, "embedding_size": 6},
    "statnn": {"hidden": [8]},
    "transformer": {"width": 8, "depth": 2, "heads": 2},
    "unf": {"channels": 4, "depth": 2, "hidden_size": 8, "embedding_size": 6},
}
INVARIANT = ("deepsets", "statnn", "unf")


def siren_layout() -> Layout:
    """A network 2-4-5-1: two sets of neurons, every kind of tensor that touches them."""
    sizes, specs = (2, 4, 5, 1), []
    for i in range(3):
        out, into = (None if i == 2 else f"neurons.{i}"), (None if i == 0 else f"neurons.{i - 1}")
        group = {"group": f"layers.{i}", "token_axis": 0}
        specs.append(TensorSpec(name=f"layers.{i}.weight", shape=(sizes[i + 1], sizes[i]), axes=(out, into), **group))
        specs.append(TensorSpec(name=f"layers.{i}.bias", shape=(sizes[i + 1],), axes=(out,), **group))
    return Layout(tuple(specs))


def factor_layout() -> Layout:
    """An adapter of rank 3 on two layers, whose rank components may be exchanged."""
    specs = []
    for i, (into, out) in enumerate(((2, 5), (5, 4))):
        group, rank = {"group": f"layers.{i}"}, f"rank.{i}"
        specs.append(TensorSpec(name=f"layers.{i}.down", shape=(3, into), axes=(rank, None), token_axis=0, **group))
        specs.append(TensorSpec(name=f"layers.{i}.up", shape=(out, 3), axes=(None, rank), token_axis=1, **group))
    return Layout(tuple(specs))


def random_fields(layout: Layout, num: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """Fields whose entries differ in mean and deviation, with frozen entries that all share."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(layout.num_weights, generator=torch.Generator().manual_seed(5))
    flat = mean + (0.5 + mean.abs()) * torch.randn(num, layout.num_weights, generator=generator)
    frozen = ~layout.trainable()
    flat[:, frozen] = mean[frozen]
    return layout.unflatten(flat)


def make_encoder(kind: str, layout: Layout, seed: int = 0, **options) -> WeightEncoder:
    """A small encoder of a kind in evaluation mode, with statistics of :func:`random_fields`."""
    statistics = WeightStatistics.from_batches(layout, [random_fields(layout)])
    torch.manual_seed(seed)
    encoder = build_encoder(kind, {**OPTIONS[kind], **options}, statistics)
    encoder.measure(encoder.statistics.normalise(random_fields(layout)))
    return encoder.eval()


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest difference of two sets of embeddings."""
    return float((first - second).detach().abs().max())


def check_shape_and_determinism(kind: str, layout: Layout) -> None:
    weights = random_fields(layout, 7, seed=1)
    encoder = make_encoder(kind, layout)
    embeddings = encoder(weights)
    assert embeddings.shape == (7, encoder.embedding_size)
    assert torch.equal(embeddings, encoder(weights)) and torch.equal(embeddings, make_encoder(kind, layout)(weights))
    assert distance(embeddings, make_encoder(kind, layout, seed=1)(weights)) > 1e-3
    assert distance(embeddings[0], embeddings[1]) > 1e-3, "fields must differ for this to mean anything"
    assert encoder.num_parameters == sum(p.numel() for p in encoder.parameters()) > 0


def check_one_field_equals_its_row(kind: str, layout: Layout) -> None:
    weights, encoder = random_fields(layout, 5, seed=1), make_encoder(kind, layout)
    alone = encoder({name: tensor[3:4] for name, tensor in weights.items()})
    assert distance(alone[0], encoder(weights)[3]) < ROUNDING


def check_it_is_saved_whole(kind: str, layout: Layout, directory) -> None:
    weights, encoder = random_fields(layout, 5, seed=1), make_encoder(kind, layout)
    encoder.save_pretrained(directory)
    again = load_encoder(directory)
    assert type(again) is type(encoder) and again.config == encoder.config and again.layout == layout
    assert torch.equal(again(weights), encoder(weights))
    state = encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert json.loads((directory / "config.json").read_text())["kind"] == kind


def check_gradients_reach_every_parameter(kind: str, layout: Layout) -> None:
    encoder = make_encoder(kind, layout)
    embeddings = encoder(random_fields(layout, seed=1))
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2))
    (embeddings * direction).sum().backward()
    lost = [name for name, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not lost, f"no gradient reaches {lost}"


def check_frozen_entries_never_matter(kind: str, layout: Layout) -> None:
    free = layout.trainable()
    assert not free.all(), "a layout with frozen entries"
    weights, encoder = random_fields(layout, 5, seed=1), make_encoder(kind, layout)
    flat, embeddings = layout.flatten(weights), encoder(weights)
    assert torch.equal(encoder(layout.unflatten(torch.where(free, flat, 1e3))), embeddings)
    moved = flat.clone()
    moved[:, free.nonzero()[0]] += 1.0
    assert distance(encoder(layout.unflatten(moved)), embeddings) > 1e-4, "a free entry does matter"


def check_it_is_invariant(kind: str, layout: Layout, **options) -> None:
    weights, encoder = random_fields(layout, 6, seed=1), make_encoder(kind, layout, **options)
    permuted = PermutationSpec.from_layout(layout).augment(weights, torch.Generator().manual_seed(3))
    assert any(not torch.equal(permuted[name], weights[name]) for name in weights)
    assert distance(encoder(permuted), encoder(weights)) < ROUNDING


def check_the_same_permutation_is_seen(kind: str, layout: Layout, **options) -> None:
    """The negative control: what is no symmetry for this encoder changes its embedding."""
    weights, encoder = random_fields(layout, 6, seed=1), make_encoder(kind, layout, **options)
    permuted = PermutationSpec.from_layout(layout).augment(weights, torch.Generator().manual_seed(3))
    assert distance(encoder(permuted), encoder(weights)) > 1e-3
