"""A fitted field, exported and loaded by PEFT, is the same field."""

import copy
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn

import wsrl.adapters.mlora  # noqa: F401 (registers the method with PEFT)
from wsrl.adapters.masks import asymmetric_mask
from wsrl.adapters.scaling import FORMS, scale_weight
from wsrl.errors import UserError
from wsrl.exchange.adapter_export import export_field


class Trunk(nn.Module):
    """A plain stack of linear layers with more than ten of them, so that names that extend each other occur.

    The sine has no frequency factor: with one of 3 a dozen layers amplify a rounding of the input to 5e-3.
    """

    def __init__(self, width=6, depth=12):
        super().__init__()
        sizes = [2, *[width] * (depth - 1), 3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, coords):
        for layer in self.layers[:-1]:
            coords = torch.sin(layer(coords))
        return self.layers[-1](coords)


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    return Trunk()


def fitted(trunk, fraction=0.0, rank=3):
    """Random factors with frozen zeros, and their masks, for all layers but one."""
    generator = torch.Generator().manual_seed(1)
    weights, masks = {}, {}
    for i, layer in enumerate(trunk.layers):
        num_out, num_in = layer.weight.shape
        if i == 5:
            continue
        mask = asymmetric_mask(rank, num_in, fraction, generator)
        weights[f"layers.{i}.down"] = 0.5 * torch.randn(rank, num_in, generator=generator) * mask
        weights[f"layers.{i}.up"] = 0.5 * torch.randn(num_out, rank, generator=generator)
        masks[f"layers.{i}.down"] = mask
    return weights, masks


def picture(trunk, weights, form, coords):
    """The field by the formulas alone."""
    trunk = copy.deepcopy(trunk)
    for i, layer in enumerate(trunk.layers):
        if f"layers.{i}.down" in weights:
            down, up = weights[f"layers.{i}.down"], weights[f"layers.{i}.up"]
            scaled = layer.weight + up @ down if form == "add" else scale_weight(layer.weight, down, up, form)
            layer.weight = nn.Parameter(scaled.detach())
    return trunk(coords)


@pytest.mark.parametrize("form", [*FORMS, "add"])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_loaded_adapter_is_the_field(trunk, form, fraction, tmp_path):
    weights, masks = fitted(trunk, fraction)
    coords = 2 * torch.rand(50, 2, generator=torch.Generator().manual_seed(2)) - 1
    before = trunk(coords)
    export_field(weights, form=form, trunk=trunk, out_dir=tmp_path / "field", masks=masks)
    assert torch.equal(trunk(coords), before)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in (tmp_path / "field").iterdir()
    }
    model = PeftModel.from_pretrained(copy.deepcopy(trunk), str(tmp_path / "field"))
    expected = picture(trunk, weights, form, coords)
    torch.testing.assert_close(model(coords), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, before, atol=1e-2)
    torch.testing.assert_close(model.merge_and_unload()(coords), expected, rtol=0, atol=1e-5)


def test_masks_travel_with_the_adapter(trunk, tmp_path):
    weights, masks = fitted(trunk, 0.3)
    export_field(weights, form="exp", trunk=trunk, out_dir=tmp_path, masks=masks)
    model = PeftModel.from_pretrained(trunk, str(tmp_path), is_trainable=True)
    for name, mask in masks.items():
        layer = model.base_model.model.get_submodule(name.removesuffix(".down"))
        assert torch.equal(layer.mlora_mask["default"], mask)
        assert layer.mlora_A["default"].requires_grad


def test_additive_field_is_a_lora_of_scaling_one(trunk, tmp_path):
    weights, _ = fitted(trunk)
    weights["layers.1.down"], weights["layers.1.up"] = torch.ones(2, 6), torch.ones(6, 2)
    export_field(weights, form="add", trunk=trunk, out_dir=tmp_path)
    model = PeftModel.from_pretrained(trunk, str(tmp_path))
    assert isinstance(model.peft_config["default"], LoraConfig)
    for i in (0, 1, 11):
        assert model.base_model.model.layers[i].scaling["default"] == 1


@pytest.mark.parametrize("form", [*FORMS, "add"])
def test_double_precision_survives_the_export(trunk, form, tmp_path):
    weights, masks = fitted(trunk, 0.3)
    trunk, weights = trunk.double(), {name: value.double() for name, value in weights.items()}
    coords = torch.rand(20, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    export_field(weights, form=form, trunk=trunk, out_dir=tmp_path, masks=masks)
    model = PeftModel.from_pretrained(copy.deepcopy(trunk), str(tmp_path))
    torch.testing.assert_close(model(coords), picture(trunk, weights, form, coords), rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused(trunk, tmp_path):
    weights, _ = fitted(trunk)
    with pytest.raises(UserError, match=r"Weights named layers\.0\.weight.*Allowed: <module>\.down"):
        export_field({"layers.0.weight": torch.ones(6, 2)}, form="exp", trunk=trunk, out_dir=tmp_path)
    with pytest.raises(UserError, match=r"factors of layers\.0 do not fit the base field"):
        export_field({**weights, "layers.0.down": torch.ones(3, 5)}, form="exp", trunk=trunk, out_dir=tmp_path)
    with pytest.raises(UserError, match=r"factors of layers\.5 do not fit the base field"):
        extra = {"layers.5.down": torch.ones(3, 6), "layers.5.up": torch.ones(6, 2)}
        export_field(extra, form="exp", trunk=trunk, out_dir=tmp_path)
    with pytest.raises(UserError, match="form is 'sum'"):
        export_field(weights, form="sum", trunk=trunk, out_dir=tmp_path)


def test_masks_of_another_field_are_refused(trunk, tmp_path):
    weights, _ = fitted(trunk)
    for masks in (
        {"layers.0.down": torch.zeros(3, 2, dtype=torch.bool)},
        {"layers.1.down": torch.zeros(3, 5, dtype=torch.bool)},
        {"layers.5.down": torch.zeros(3, 6, dtype=torch.bool)},
    ):
        with pytest.raises(UserError, match=r"mask of layers\.\d\.down does not fit the weights"):
            export_field(weights, form="exp", trunk=trunk, out_dir=tmp_path, masks=masks)
