"""Tokens: what a token holds, the exact way back, what masks keep out."""

import pytest
import torch

from wsrl.encoders.tokens import WeightTokeniser
from wsrl.fields.layout import Layout, TensorSpec


def adapter_layout(masked=True):
    specs = []
    for number, (size_in, size_out) in enumerate(((5, 4), (4, 2))):
        group = f"layers.{number}"
        trainable = torch.ones(3, size_in, dtype=torch.bool)
        if masked:
            trainable[0, 1] = trainable[2, 0] = False
        frozen = TensorSpec.pack_frozen(trainable)
        down = {"name": f"{group}.down", "shape": (3, size_in), "axes": ("r", None), "token_axis": 0, "frozen": frozen}
        up = {"name": f"{group}.up", "shape": (size_out, 3), "axes": (None, "r"), "token_axis": 1}
        specs += [TensorSpec(group=group, **down), TensorSpec(group=group, **up)]
    return Layout(tuple(specs))


def standalone_layout():
    specs = []
    for number, (size_in, size_out) in enumerate(((2, 6), (6, 1))):
        group = f"layers.{number}"
        weight = TensorSpec(
            name=f"{group}.weight", shape=(size_out, size_in), axes=(None, None), group=group, token_axis=0
        )
        bias = TensorSpec(name=f"{group}.bias", shape=(size_out,), axes=(None,), group=group, token_axis=0)
        specs += [weight, bias]
    return Layout(tuple(specs))


@pytest.mark.parametrize("layout", [adapter_layout(), adapter_layout(False), standalone_layout()])
def test_tokens_and_back_is_exact(layout):
    vector = torch.randn(7, layout.num_trainable)
    tokeniser = WeightTokeniser(layout)
    tokens = tokeniser(vector)
    assert [tuple(part.shape[1:]) for part in tokens] == list(tokeniser.shapes)
    assert torch.equal(tokeniser.join(tokens), vector)


def test_a_token_of_an_adapter_is_a_rank_pair():
    layout = adapter_layout(masked=False)
    vector = torch.randn(2, layout.num_trainable)
    weights = layout.unflatten(vector)
    tokens = WeightTokeniser(layout)(vector)
    assert [part.shape[1:] for part in tokens] == [(3, 9), (3, 6)]
    pair = torch.cat([weights["layers.0.down"][:, 1], weights["layers.0.up"][:, :, 1]], dim=1)
    assert torch.equal(tokens[0][:, 1], pair)


def test_a_token_of_a_standalone_layer_is_a_neuron():
    layout = standalone_layout()
    vector = torch.randn(2, layout.num_trainable)
    weights = layout.unflatten(vector)
    tokens = WeightTokeniser(layout)(vector)
    assert [part.shape[1:] for part in tokens] == [(6, 3), (1, 7)]
    assert torch.equal(tokens[0][:, 4, :2], weights["layers.0.weight"][:, 4])
    assert torch.equal(tokens[0][:, 4, 2], weights["layers.0.bias"][:, 4])


def test_masked_entries_are_zero_in_tokens_and_dropped_on_the_way_back():
    layout = adapter_layout()
    tokeniser = WeightTokeniser(layout)
    vector = torch.rand(3, layout.num_trainable) + 1
    tokens = tokeniser(vector)
    for part, spec in zip(tokens, (layout.tensors[0], layout.tensors[2])):
        frozen = torch.zeros(part.shape[1:], dtype=torch.bool)
        frozen[:, : spec.shape[1]] = ~spec.trainable()
        assert torch.equal(part == 0, frozen.expand_as(part))
        part[:, frozen] = float("nan")
    assert torch.equal(tokeniser.join(tokens), vector)


def test_the_tables_are_not_saved():
    assert WeightTokeniser(adapter_layout()).state_dict() == {}
