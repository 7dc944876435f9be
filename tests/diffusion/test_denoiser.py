"""The denoising transformer: shapes, gradients, what layers and masks may see."""

import pytest
import torch
from diffusion_fields import adapter_representation, standalone_representation

from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.errors import UserError


def denoiser(layout, **options):
    """A denoiser whose zero-initialised gates and outputs are moved away from zero."""
    torch.manual_seed(0)
    model = WeightTransformer(
        layout=layout.to_json(), **{"width": 16, "depth": 2, "local_depth": 1, "heads": 2, **options}
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("make", [adapter_representation, standalone_representation])
def test_output_has_the_shape_of_the_input_and_every_parameter_a_gradient(make):
    layout = make().layout
    model = denoiser(layout)
    vector = torch.randn(3, layout.num_trainable)
    prediction = model(vector, torch.tensor([0, 500, 999]))
    assert prediction.shape == vector.shape
    prediction.square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


def test_the_start_predicts_zero():
    layout = adapter_representation().layout
    model = WeightTransformer(layout=layout.to_json(), width=16, depth=1, local_depth=1, heads=2)
    assert torch.equal(
        model(torch.randn(2, layout.num_trainable), torch.tensor(7)), torch.zeros(2, layout.num_trainable)
    )


def test_the_timestep_and_the_weights_change_the_prediction():
    layout = adapter_representation().layout
    model = denoiser(layout)
    vector = torch.randn(2, layout.num_trainable)
    early, late = model(vector, torch.tensor(10)), model(vector, torch.tensor(900))
    assert (early - late).abs().max() > 1e-2
    assert torch.equal(early, model(vector, torch.tensor([10, 10])))


def test_local_blocks_stay_inside_a_layer_and_the_others_do_not():
    layout = adapter_representation().layout
    vector = torch.randn(1, layout.num_trainable)
    moved = vector.clone()
    moved[0, 0] += 1.0  # an entry of the first layer
    last = layout.unflatten(torch.arange(layout.num_weights))["layers.1.up"].flatten()
    last = layout.trainable().cumsum(0)[last] - 1
    for depth, changes in ((0, False), (1, True)):
        model = denoiser(layout, depth=depth, local_depth=1)
        difference = (model(moved, torch.tensor(5)) - model(vector, torch.tensor(5)))[0, last].abs().max()
        assert bool(difference > 1e-6) == changes


def test_fields_of_a_batch_do_not_see_each_other():
    layout = adapter_representation().layout
    model = denoiser(layout)
    vector = torch.randn(4, layout.num_trainable)
    alone = torch.cat([model(row[None], torch.tensor(3)) for row in vector])
    torch.testing.assert_close(model(vector, torch.tensor(3)), alone, atol=1e-5, rtol=1e-5)


def test_the_configuration_is_plain_json_and_rebuilds_the_network(tmp_path):
    layout = adapter_representation().layout
    model = denoiser(layout)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    again = WeightTransformer.from_pretrained(tmp_path)
    vector = torch.randn(2, layout.num_trainable)
    torch.testing.assert_close(again(vector, torch.tensor(3)), model(vector, torch.tensor(3)), atol=1e-6, rtol=1e-5)


def test_a_class_changes_the_prediction_and_no_class_is_one_of_its_own():
    layout = adapter_representation().layout
    model = denoiser(layout, classes=["cat", "dog"])
    vector, timestep = torch.randn(3, layout.num_trainable), torch.tensor(400)
    none = model(vector, timestep)
    mixed = model(vector, timestep, torch.tensor([0, 1, -1]))
    assert (mixed[:2] - none[:2]).abs().amax(dim=1).min() > 1e-3
    torch.testing.assert_close(mixed[2], none[2])


def test_latents_are_one_group_of_tokens():
    model = WeightTransformer(latent=[6, 4], width=16, depth=1, local_depth=1, heads=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vector = torch.randn(2, 24)
    assert model.vector_size == 24 and model.num_tokens == 6
    assert model(vector, torch.tensor(3)).shape == vector.shape


def test_a_token_per_layer():
    layout = standalone_representation().layout
    model = denoiser(layout, cut="layer")
    assert model.num_tokens == len(layout.groups())
    vector = torch.randn(2, layout.num_trainable)
    assert model(vector, torch.tensor(3)).shape == vector.shape
    with pytest.raises(UserError, match="cut is 'word'"):
        WeightTransformer(layout=layout.to_json(), cut="word")


def test_operations_are_counted():
    """By hand: the linear layers of a network without blocks, two operations for each multiplication."""
    layout = adapter_representation().layout
    model = WeightTransformer(layout=layout.to_json(), width=16, depth=0, local_depth=0, heads=2)
    tokens = sum(count * size for count, size in model.tokeniser.shapes)
    condition = 128 * 16 + 16 * 16 + 16 * 32
    assert model.count_flops() == 2 * (2 * 16 * tokens + condition)
