"""Layers that mLoRA can adapt, with their effect, and those that it refuses by name instead of having none.

Public report of the kind: DeepSDF's weight_norm, on which an adapter had no effect (0.0) and told nothing.
"""

from collections import OrderedDict

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from wsrl.adapters.mlora import MLoraConfig
from wsrl.errors import UserError


def adapted(layer, target="0", **options):
    """A model of a layer and a head with the layer adapted, its factors at random."""
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))
    return randomised(get_peft_model(model, MLoraConfig(r=2, target_modules=[target], **options)))


def randomised(model):
    for name, parameter in model.named_parameters():
        if "mlora" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def pruned(layer):
    return prune.random_unstructured(layer, "weight", amount=0.5)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def halved(layer):
    parametrize.register_parametrization(layer, "weight", Half())
    return layer


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "change, message",
    [
        (nn.utils.weight_norm, "weight_g, weight_v"),
        (nn.utils.spectral_norm, "weight_orig"),
        (pruned, "weight_orig"),
        (parametrizations.weight_norm, "_WeightNorm"),
        (parametrizations.spectral_norm, "_SpectralNorm"),
        (parametrizations.orthogonal, "_Orthogonal"),
        (halved, "Half"),
    ],
)
@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 8), lambda: nn.Conv1d(3, 8, 1)])
def test_weights_that_are_computed_anew_are_refused(change, message, make):
    with pytest.raises(UserError, match=rf"cannot adapt 0: its weight is computed anew .*{message}.*remove"):
        adapted(change(make()))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_what_the_message_says_helps():
    old = nn.utils.remove_weight_norm(nn.utils.weight_norm(nn.Linear(3, 8)))
    new = parametrizations.weight_norm(nn.Linear(3, 8))
    parametrize.remove_parametrizations(new, "weight")
    for layer in (old, new, prune.remove(pruned(nn.Linear(3, 8)), "weight")):
        check_effect(adapted(layer), torch.randn(4, 3))


def check_effect(model, x):
    """Outputs change, gradients flow, and merging gives the same outputs and can be taken back."""
    out = model(x)
    with model.disable_adapter():
        base = model(x)
    assert (out - base).abs().max() > 1e-3
    out.square().sum().backward()
    grads = [parameter.grad for name, parameter in model.named_parameters() if "mlora" in name]
    assert grads and all(grad is not None and grad.abs().sum() > 0 for grad in grads)
    names = set(model.state_dict())
    model.merge_adapter()
    torch.testing.assert_close(model(x), out, atol=1e-5, rtol=1e-5)
    assert set(model.state_dict()) == names
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), out, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model.merge_and_unload()(x), out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: nn.Linear(3, 8), (4, 3)),
        (lambda: nn.Linear(3, 8, bias=False), (4, 3)),
        (lambda: nn.Conv1d(4, 8, 3, padding=1, padding_mode="circular"), (2, 4, 5)),
        (lambda: nn.Conv2d(4, 8, 3, groups=2, stride=2, dilation=2), (2, 4, 9, 9)),
        (lambda: nn.Conv3d(2, 4, 2), (2, 2, 3, 3, 3)),
        (lambda: parametrizations.weight_norm(nn.Linear(3, 8), "bias", dim=None), (4, 3)),
    ],
)
def test_layers_with_a_weight_of_their_own_are_adapted(layer, shape):
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(body=layer(), flat=nn.Flatten(), head=nn.LazyLinear(2)))
    x = torch.randn(shape)
    model(x)
    check_effect(randomised(get_peft_model(model, MLoraConfig(r=2, target_modules=["body"]))), x)


@pytest.mark.parametrize(
    "layer",
    [nn.Bilinear(3, 3, 8), nn.Embedding(5, 8), nn.EmbeddingBag(5, 8), nn.ConvTranspose1d(3, 8, 1), nn.GRU(3, 8)],
)
def test_other_layers_are_refused_by_name(layer):
    with pytest.raises(UserError, match=f"cannot adapt 0, a {type(layer).__name__}.*Linear, Conv1d, Conv2d, Conv3d"):
        adapted(layer)


def test_weights_in_another_form_are_refused():
    with pytest.raises(UserError, match=r"cannot adapt 0: its weight is not initialised .*pass a batch"):
        adapted(nn.LazyLinear(8))
    quantised = nn.Linear(3, 8)
    quantised.weight = nn.Parameter(torch.zeros(8, 3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"its weight is quantised \(Parameter, int8\)"):
        adapted(quantised)
    packed = nn.Linear(3, 8)
    packed.weight = type("Params4bit", (nn.Parameter,), {})(torch.zeros(8, 3))  # as bitsandbytes has them
    with pytest.raises(UserError, match=r"its weight is quantised \(Params4bit"):
        adapted(packed)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_layers_that_another_method_adapts_are_refused():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=["0"])).base_model.model
    with pytest.raises(UserError, match=r"which another method of PEFT adapts already.*merge_and_unload"):
        get_peft_model(lora, MLoraConfig(r=2, target_modules=["0"]))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


def test_a_layer_with_a_shared_weight_is_merged_alone():
    torch.manual_seed(0)
    base = Tied()
    shared = base.first.weight
    model = randomised(get_peft_model(base, MLoraConfig(r=2, target_modules=["first"])))
    x = torch.randn(5, 4)
    out, before = model(x), shared.detach().clone()
    model.merge_adapter()
    torch.testing.assert_close(model(x), out, atol=1e-6, rtol=1e-5)
    assert base.second.weight is shared and torch.equal(shared, before)
    model.unmerge_adapter()
    assert base.first.base_layer.weight is shared
    torch.testing.assert_close(model.merge_and_unload()(x), out, atol=1e-6, rtol=1e-5)


def test_a_model_that_moved_while_merged_is_unmerged_in_its_new_type():
    model = randomised(get_peft_model(nn.Sequential(nn.Linear(3, 8)), MLoraConfig(r=2, target_modules=["0"])))
    model.merge_adapter()
    model.double()
    model.unmerge_adapter()
    assert model(torch.randn(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_one_layer_in_two_places_is_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(UserError, match="under 2 names, 0, 2"):
        get_peft_model(nn.Sequential(layer, nn.ReLU(), layer), MLoraConfig(r=2, target_modules=["0", "2"]))


def test_layers_whose_weight_torch_reads_past_them_are_refused():
    """In evaluation torch's fast path computes from the frozen weights: the adapter would have no effect."""
    attention = nn.ModuleDict({"mix": nn.MultiheadAttention(8, 2)})
    with pytest.raises(UserError, match=r"mix.out_proj: torch's MultiheadAttention reads its weight"):
        get_peft_model(attention, MLoraConfig(r=2, target_modules=["out_proj"]))
    encoder = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)).eval()
    with pytest.raises(UserError, match="set_fastpath_enabled"):
        get_peft_model(encoder, MLoraConfig(r=2, target_modules=["linear1"]))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model = randomised(get_peft_model(encoder, MLoraConfig(r=2, target_modules=["linear1"]))).eval()
        x = torch.randn(2, 3, 8)
        with model.disable_adapter():
            base = model(x)
        assert (model(x) - base).abs().max() > 1e-3
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
