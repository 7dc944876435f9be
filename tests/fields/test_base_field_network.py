"""The base field: saving and loading, the mean modulation, the trunk as plain modules, and PEFT on it."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

import wsrl.adapters.mlora  # noqa: F401 (registers the method with PEFT)
from wsrl.errors import UserError
from wsrl.exchange.adapter_export import export_field
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import ACTIVATIONS, ENCODINGS, FieldConfig, Trunk, apply_layers


def latents(num=4, size=4):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(("in_features", "out_features"), contracts.DIMENSIONS)
def test_saved_base_is_loaded_equal(tmp_path, in_features, out_features):
    base = contracts.tiny_base(in_features, out_features)
    base.save_pretrained(tmp_path / "base")
    assert {path.name for path in (tmp_path / "base").iterdir()} == {"config.json", "model.safetensors"}
    again = BaseField.from_pretrained(tmp_path / "base")
    coords = contracts.points(in_features=in_features)
    assert again.sha256() == base.sha256() and again.config == base.config
    assert torch.equal(again(latents(), coords), base(latents(), coords))
    assert torch.equal(again.trunk(coords), base.trunk(coords))
    assert not any(parameter.requires_grad for parameter in again.parameters()) and not again.training


def test_hash_sees_one_changed_number_and_the_configuration():
    base = contracts.tiny_base()
    before = base.sha256()
    other = BaseField.from_json(base.to_json() | {"latent_size": 4})
    assert other.sha256() != before
    base.trunk.layers[1].weight.data[0, 0] += 1e-6
    assert base.sha256() != before


def test_folding_the_mean_modulation_changes_no_latent():
    config = BaseFieldConfig(field=contracts.SMALL, latent_size=4, mapping_width=8, mapping_depth=1)
    base = BaseField(config, 2, 3, torch.Generator().manual_seed(0))
    coords, before = contracts.points(), base.trunk(contracts.points()).detach()
    with torch.no_grad():
        expected = base(latents(), coords)
        for num in (40, 7):  # a second fold takes the first back
            base.fold_mean_modulation(latents(num) + 1)
            torch.testing.assert_close(base(latents(), coords), expected, rtol=1e-5, atol=1e-5)
        assert (base.trunk(coords) - before).abs().max() > 1e-3
        means = [base.get_buffer(f"mean_modulation_{i}") for i in range(len(base.trunk.layers))]
        for mean, modulation in zip(means, base.mapping(latents(7) + 1)):
            torch.testing.assert_close(mean, modulation.mean(0), rtol=1e-5, atol=1e-6)


def test_channel_folded_to_nearly_zero_comes_back():
    config = BaseFieldConfig(field=contracts.SMALL, latent_size=4, mapping_width=8, mapping_depth=1)
    base = BaseField(config, 2, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        base.mapping.head.weight.zero_()
        base.mapping.head.bias.fill_(-1.0)
        base.fold_mean_modulation(latents())
        base.mapping.head.bias.fill_(0.0)
        unmodulated = BaseField(config, 2, 1, torch.Generator().manual_seed(0))
        unmodulated.mapping.head.weight.zero_()
        expected = unmodulated(latents(), contracts.points())
        torch.testing.assert_close(base(latents(), contracts.points()), expected, rtol=1e-4, atol=1e-5)


def test_instances_have_their_own_points_or_share_them():
    base, coords = contracts.tiny_base(2, 3), contracts.points()
    together = base(latents(), coords)
    own = base(latents(), torch.stack([coords.roll(i, 0) for i in range(4)]))
    for i in range(4):
        alone = base(latents()[i : i + 1], coords)[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own[i], alone.roll(i, 0), rtol=1e-5, atol=1e-5)


def test_modulation_scales_the_columns_of_the_weights():
    """The formula itself, W * (1 + s(z)), on plain modules."""
    base, coords = contracts.tiny_base(2, 3), contracts.points()
    values = base(latents(), coords)
    for i in range(4):
        trunk = copy.deepcopy(base.trunk)
        for layer, scales in zip(trunk.layers, base.modulation(latents()[i : i + 1])):
            layer.weight.mul_(scales[0])
        torch.testing.assert_close(values[i], trunk(coords), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_trunk_equals_its_layers_as_functions(encoding, activation, residual):
    config = FieldConfig(
        width=8, depth=3, num_frequencies=4, encoding=encoding, activation=activation, residual=residual, omega=3.0
    )
    base = BaseField(BaseFieldConfig(field=config), 2, 3)
    coords = contracts.points()
    values = apply_layers(config, base.trunk.encoding(coords), base.trunk.weights, base.trunk.biases)
    torch.testing.assert_close(values.mT, base.trunk(coords), rtol=1e-5, atol=1e-5)


def test_trunk_calls_its_layers():
    base, calls = contracts.tiny_base(), []
    assert isinstance(base.trunk, Trunk)
    for layer in base.trunk.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    base.trunk(contracts.points())
    assert len(calls) == len(base.trunk.layers)


@pytest.mark.parametrize(("kind", "form"), [("mlora_asym", "exp"), ("mlora_asym", "product"), ("lora", "exp")])
def test_peft_loads_a_fitted_field_onto_the_trunk(tmp_path, kind, form):
    representation = contracts.tiny_representation(kind, form, 2, 3)
    _, fitted = contracts.fitted(representation)
    weights = {name: value[1] for name, value in fitted.items()}
    masks = {spec.name: spec.trainable() for spec in representation.layout if spec.frozen is not None}
    trunk = copy.deepcopy(representation.base.trunk)
    export_field(weights, form=form if kind != "lora" else "add", trunk=trunk, out_dir=tmp_path / "field", masks=masks)
    model = PeftModel.from_pretrained(trunk, str(tmp_path / "field"))
    coords = contracts.points(64)
    expected = representation.evaluate({name: value[None] for name, value in weights.items()}, coords)[0]
    torch.testing.assert_close(model(coords), expected, rtol=0, atol=1e-5)
    assert (expected - representation.base.trunk(coords)).abs().max() > 0.01


def spoil(folder: Path, name: str, text: bytes | None):
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "does not hold a base field"),
        ("model.safetensors", None, "does not hold a base field"),
        ("config.json", b"{", "does not hold a base field"),
        ("config.json", b"[1, 2]", "does not hold a base field"),
        ("config.json", b'"text"', "does not hold a base field"),
        ("config.json", b"\xff\xfe\x00", "does not hold a base field"),
        ("config.json", b"{}", "does not hold a base field"),
        ("model.safetensors", b"", "does not hold a base field"),
        ("model.safetensors", b"x" * 50, "does not hold a base field"),
    ],
)
def test_folder_without_a_readable_base_is_refused(tmp_path, name, text, message):
    contracts.tiny_base().save_pretrained(tmp_path)
    spoil(tmp_path, name, text)
    with pytest.raises(UserError, match=rf"{message}.*Allowed: a folder with config.json.*What to do"):
        BaseField.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"latent_size": 5}, {"unknown": 1}, {"out_features": "many"}])
def test_configuration_that_does_not_fit_the_tensors_is_refused(tmp_path, change):
    base = contracts.tiny_base()
    base.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(base.to_json() | change))
    with pytest.raises(UserError, match="does not hold a base field"):
        BaseField.from_pretrained(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not hold a base field"):
        BaseField.from_pretrained(tmp_path / "nothing")
