"""mLoRA as a PEFT method: everything that PEFT promises of a method, for linear layers and convolutions."""

import copy
import json

import pytest
import torch
from peft import HiraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from torch import nn

from wsrl.adapters.mlora import MLoraConfig, MLoraLayer
from wsrl.adapters.scaling import FORMS, scale_weight
from wsrl.errors import UserError


class Net(nn.Module):
    """A padded, strided and grouped convolution, a 1D convolution and linear layers, each found by name."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="circular")
        self.line = nn.Conv1d(6, 5, 3)
        self.fc = nn.Linear(5, 8, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.tanh(self.line(torch.tanh(self.conv(x)).flatten(2)))
        return self.head(torch.tanh(self.fc(x.mean(-1))))


TARGETS = ["conv", "line", "fc"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture
def x():
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def config(**options):
    return MLoraConfig(**{"r": 3, "target_modules": list(TARGETS), "mask_fraction": 0.4, **options})


def perturb(model, seed=2, scale=0.3):
    """Move what is trainable; masked entries too, which must not matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, MLoraLayer)}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_it_is_registered():
    assert PeftType("MLORA") is PeftType["MLORA"] is PeftType.MLORA
    assert PeftType.MLORA in list(PeftType) and json.dumps(PeftType.MLORA) == '"MLORA"'
    assert PEFT_TYPE_TO_CONFIG_MAPPING["MLORA"] is MLoraConfig
    assert copy.deepcopy(PeftType.MLORA) is PeftType.MLORA


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mask_fraction", [0.0, 0.4])
def test_start_is_the_base_and_only_factors_train(net, x, form, mask_fraction):
    expected = net(x)
    model = get_peft_model(net, config(form=form, mask_fraction=mask_fraction))
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"base_model.model.{name}.mlora_{factor}.default" for name in TARGETS for factor in "AB"}
    perturb(model)
    assert not torch.allclose(model(x), expected, rtol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_output_is_that_of_the_scaled_weights(net, x, form):
    reference = copy.deepcopy(net)
    model = get_peft_model(net, config(form=form))
    perturb(model)
    for name, layer in layers(model).items():
        target = reference.get_submodule(name.removeprefix("base_model.model."))
        down = layer.mlora_A["default"] * layer.mlora_mask["default"]
        scaled = scale_weight(target.weight.flatten(1), down, layer.mlora_B["default"], form)
        target.weight = nn.Parameter(scaled.reshape(target.weight.shape).detach())
    assert len(layers(model)) == 3
    close(model(x), reference(x))


@pytest.mark.parametrize("form", FORMS)
def test_gradients(net, x, form):
    model = get_peft_model(net, config(form=form))
    perturb(model)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    values = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def output(*factors):
        return torch.func.functional_call(model, dict(zip(names, factors)), (x[:1],))

    assert torch.autograd.gradcheck(output, values, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_frozen_entries_stay_bit_identical(net, x, form):
    model = get_peft_model(net, config(form=form))
    before = {name: layer.mlora_A["default"].detach().clone() for name, layer in layers(model).items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()
    for name, layer in layers(model).items():
        mask, down = layer.mlora_mask["default"], layer.mlora_A["default"]
        assert (~mask).any() and mask.any(0).all() and mask.any(1).all()
        assert (down.grad[~mask] == 0).all()
        assert torch.equal(down[~mask], before[name][~mask]) and (down[~mask] == 0).all()
        assert (down[mask] != before[name][mask]).all()


@pytest.mark.parametrize("form", FORMS)
def test_save_and_load(net, x, form, tmp_path):
    base = copy.deepcopy(net)
    model = get_peft_model(net, config(form=form, rank_pattern={"fc": 2}))
    perturb(model)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    assert torch.equal(loaded(x), model(x))
    loaded_config = loaded.peft_config["default"]
    assert isinstance(loaded_config, MLoraConfig) and (loaded_config.form, loaded_config.mask_fraction) == (form, 0.4)
    assert isinstance(PeftConfig.from_pretrained(str(tmp_path)), MLoraConfig)
    assert layers(loaded)["base_model.model.fc"].mlora_A["default"].shape == (2, 5)


def test_loading_without_a_second_copy_in_memory(net, x, tmp_path):
    base = copy.deepcopy(net)
    model = get_peft_model(net, config())
    perturb(model)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(PeftModel.from_pretrained(base, str(tmp_path), low_cpu_mem_usage=True)(x), model(x))


def test_the_saved_mask_wins_over_the_seed(net, x, tmp_path):
    base = copy.deepcopy(net)
    model = get_peft_model(net, config())
    perturb(model)
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mask_seed": 99}))
    assert torch.equal(PeftModel.from_pretrained(base, str(tmp_path))(x), model(x))


def test_masks_depend_on_seed_and_module(net):
    masks = [
        {name: layer.mlora_mask["default"] for name, layer in layers(get_peft_model(copy.deepcopy(net), c)).items()}
        for c in (config(), config(), config(mask_seed=1))
    ]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert not any(torch.equal(masks[0][name], masks[2][name]) for name in masks[0])


@pytest.mark.parametrize("form", FORMS)
def test_merge_and_unmerge(net, x, form):
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    model = get_peft_model(net, config(form=form))
    perturb(model)
    if form == "product":
        with torch.no_grad():
            layers(model)["base_model.model.fc"].mlora_B["default"].zero_()
    expected = model(x)
    model.merge_adapter(safe_merge=True)
    close(model(x), expected)
    model.unmerge_adapter()
    for name in TARGETS:
        assert torch.equal(layers(model)[f"base_model.model.{name}"].base_layer.weight, weights[f"{name}.weight"])
    assert torch.equal(model(x), expected)
    merged = model.merge_and_unload()
    assert isinstance(merged, Net) and not layers(merged)
    close(merged(x), expected)


def test_unload_gives_the_base_back(net, x):
    expected = net(x)
    model = get_peft_model(net, config())
    perturb(model)
    assert torch.equal(model.unload()(x), expected)


def test_safe_merge_refuses_what_is_not_finite(net):
    model = get_peft_model(net, config())
    perturb(model, scale=1e4)
    with pytest.raises(UserError, match="not finite"):
        model.merge_adapter(safe_merge=True)


def test_disable_also_while_merged(net, x):
    expected = net(x)
    model = get_peft_model(net, config())
    perturb(model)
    adapted = model(x)
    with model.disable_adapter():
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), adapted)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(x), expected)


def test_several_adapters(net, x):
    base = net(x)
    model = get_peft_model(net, config(form="product"))
    perturb(model, seed=2)
    model.add_adapter("second", config(form="exp", mask_fraction=0.0, r=2, target_modules=["fc", "head"]))
    first = model(x)
    model.set_adapter("second")
    close(model(x), base)
    perturb(model, seed=3)
    second = model(x)
    model.set_adapter("default")
    assert torch.equal(model(x), first)
    assert not torch.allclose(first, second)
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    assert not any("default" in layer.mlora_mask or "default" in layer.mlora_A for layer in layers(model).values())
    # PEFT takes the new active adapter from the first layer, which has none left here (its LoRA does the same).
    model.set_adapter("second")
    assert torch.equal(model(x), second)


def test_active_adapters_compose(net, x):
    model = get_peft_model(net, config(form="product"))
    perturb(model, seed=2)
    model.add_adapter("second", config(form="one_plus"))
    model.set_adapter("second")
    perturb(model, seed=3)
    layer = layers(model)["base_model.model.fc"]
    model.base_model.set_adapter(["default", "second"])
    first, second = (
        layer.mlora_B[name] @ (layer.mlora_A[name] * layer.mlora_mask[name]) for name in ("default", "second")
    )
    close(layer.scaled_weight(layer.base_layer.weight, layer.active_adapters), layer.weight * first * (1 + second))
    expected = model(x)
    model.base_model.set_adapter("default")
    model.merge_adapter()
    with pytest.warns(UserWarning, match="additionally merging second"):
        layer.merge(adapter_names=["second"])
    close(layer.base_layer.weight, layer._weight_before_merge * first * (1 + second))
    model.unmerge_adapter()
    model.base_model.set_adapter(["default", "second"])
    assert torch.equal(model(x), expected)
    close(model.merge_and_unload()(x), expected)


def test_unmerging_twice_warns(net):
    model = get_peft_model(net, config(target_modules=["fc"]))
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()


def test_agrees_with_hira(net, x):
    ours = get_peft_model(copy.deepcopy(net), config(form="one_plus", mask_fraction=0.0, target_modules=["fc", "head"]))
    perturb(ours)
    theirs = get_peft_model(copy.deepcopy(net), HiraConfig(r=3, target_modules=["fc", "head"]))
    with torch.no_grad():
        for name in ("fc", "head"):
            mine, hira = ours.base_model.model.get_submodule(name), theirs.base_model.model.get_submodule(name)
            hira.hira_A["default"].copy_(mine.mlora_A["default"])
            hira.hira_B["default"].copy_(mine.mlora_B["default"])
    close(ours(x), theirs(x))
    close(ours.merge_and_unload()(x), theirs.merge_and_unload()(x))


def test_bias_and_modules_to_save(net, x, tmp_path):
    base = copy.deepcopy(net)
    model = get_peft_model(net, config(bias="mlora_only", modules_to_save=["head"]))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trainable if name.endswith("base_layer.bias")} == {
        f"base_model.model.{name}.base_layer.bias" for name in ("conv", "line")
    }
    assert "base_model.model.head.modules_to_save.default.weight" in trainable
    perturb(model)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(PeftModel.from_pretrained(base, str(tmp_path))(x), model(x))


def test_target_modules_by_expression_and_exclusion(net):
    model = get_peft_model(net, config(target_modules=r"(fc|head|line)", exclude_modules=["line"]))
    assert {name.rpartition(".")[2] for name in layers(model)} == {"fc", "head"}


def test_factors_may_be_wider_than_the_weight(net, x):
    half = copy.deepcopy(net).to(torch.bfloat16)
    model = get_peft_model(half, config())
    assert layers(model)["base_model.model.fc"].mlora_A["default"].dtype == torch.float32
    assert model(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_other_layers_are_refused():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"cannot adapt 0, a Embedding\. Allowed: Linear, Conv1d, Conv2d, Conv3d"):
        get_peft_model(model, config(target_modules=["0"]))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"form": "add"}, "form is 'add'"),
        ({"r": 0}, "r is 0.*1 or more"),
        ({"mask_fraction": 1.0}, "mask_fraction is 1.0.*not including, 1"),
        ({"bias": "some"}, "bias is 'some'.*none, all, mlora_only"),
        ({"target_modules": "fc", "layers_to_transform": [1]}, "regular expression"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        config(**options)
