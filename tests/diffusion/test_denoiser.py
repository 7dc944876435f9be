"""The denoising transformer: shapes, gradients, what layers and masks may see."""

import pytest
import torch
from diffusion_fields import adapter_representation, standalone_representation

from wsrl.diffusion.denoiser import WeightTransformer


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
