"""The symmetry of perceptrons and convolutional networks, axis by axis."""

import pytest
import torch
import torch.nn.functional as F
from symmetry_networks import BasicBlock, Computed, inferred_spec, mlp, noise
from torch import nn

from wsrl.symmetry.spec.axes import Concat, Product


def test_every_hidden_layer_of_a_perceptron_permutes():
    spec = inferred_spec(mlp(2, 5, 6, 3), noise(4, 2))
    assert spec.axes == {
        "0.weight": ("0", None),
        "0.bias": ("0",),
        "2.weight": ("2", "0"),
        "2.bias": ("2",),
        "4.weight": (None, "2"),
        "4.bias": (None,),
    }
    assert spec.sizes == {"0": 5, "2": 6} and spec.within == {}


def test_a_siren_is_a_perceptron():
    layers = {"a": nn.Linear(2, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 3)}
    net = Computed(lambda self, x: self.c(torch.sin(self.b(torch.sin(30 * self.a(x))))), **layers)
    spec = inferred_spec(net, noise(4, 2))
    assert [spec.axes[f"{name}.weight"] for name in "abc"] == [("a", None), ("b", "a"), (None, "b")]


def test_fourier_features_in_a_buffer_move_in_both_halves():
    net = Computed(
        lambda self, x: self.out(torch.cat([(x @ self.features).sin(), (x @ self.features).cos()], -1)),
        out=nn.Linear(8, 1),
    )
    net.register_buffer("features", noise(2, 4))
    spec = inferred_spec(net, noise(5, 2))
    assert spec.axes["features"] == (None, "features")
    assert spec.axes["out.weight"] == (None, Concat(("features", "features")))
    held = inferred_spec(net, noise(5, 2), buffers=False)
    assert held.permutations == ()


def test_batch_norm_moves_with_its_channels_and_flattening_makes_a_product():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5)
    )
    spec = inferred_spec(net, noise(2, 1, 8, 8))
    assert spec.axes["0.weight"] == ("0", None, None, None)
    assert all(spec.axes[f"1.{name}"] == ("0",) for name in ("weight", "bias", "running_mean", "running_var"))
    assert spec.axes["1.num_batches_tracked"] == ()
    assert spec.axes["5.weight"] == (None, Product(("0", 9)))
    assert spec == inferred_spec(net, noise(2, 1, 8, 8), buffers=False)


def test_flattening_positions_first():
    net = Computed(
        lambda self, x: self.fc(self.conv(x).relu().permute(0, 2, 3, 1).flatten(1)),
        conv=nn.Conv2d(1, 4, 3),
        fc=nn.Linear(36, 2),
    )
    assert inferred_spec(net, noise(2, 1, 5, 5)).axes["fc.weight"] == (None, Product((9, "conv")))


def test_a_shortcut_ties_and_a_projection_parts():
    same, other = BasicBlock(4, 4, 1), BasicBlock(4, 6, 2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), same, other, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    spec = inferred_spec(net, noise(2, 3, 8, 8))
    assert spec.axes["1.conv1.weight"][:2] == ("1.conv1", "0")
    assert spec.axes["1.conv2.weight"][:2] == ("0", "1.conv1")
    assert spec.axes["2.conv1.weight"][:2] == ("2.conv1", "0")
    assert spec.axes["2.shortcut.0.weight"][:2] == ("2.conv2", "0")
    assert spec.axes["2.bn2.running_var"] == spec.axes["2.shortcut.1.running_mean"] == ("2.conv2",)
    assert spec.axes["5.weight"] == (None, "2.conv2")


def test_a_shortcut_padded_with_zeros_has_parts_that_permute():
    def run(self, x):
        x = self.conv(x).relu()
        padded = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))
        return self.fc((self.down(x) + padded).relu().mean((2, 3)))

    net = Computed(run, conv=nn.Conv2d(3, 4, 3, padding=1), down=nn.Conv2d(4, 9, 3, 2, 1), fc=nn.Linear(9, 2))
    spec = inferred_spec(net, noise(2, 3, 6, 6))
    assert spec.axes["down.weight"][:2] == (Concat(("down", "conv", "down.weight")), "conv")
    assert spec.axes["fc.weight"] == (None, Concat(("down", "conv", "down.weight")))
    assert spec.sizes == {"conv": 4, "down": 2, "down.weight": 3}


def test_concatenated_features_keep_their_permutations():
    net = Computed(
        lambda self, x: self.c(torch.cat([self.a(x).relu(), self.b(self.a(x).relu()).relu()], 1)),
        a=nn.Linear(3, 4),
        b=nn.Linear(4, 5),
        c=nn.Linear(9, 2),
    )
    assert inferred_spec(net, noise(2, 3)).axes["c.weight"] == (None, Concat(("a", "b")))


def test_depthwise_convolutions_move_with_their_channels():
    deep, wide = nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 12, 3, groups=6)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), deep, wide, nn.PReLU(12), nn.Conv2d(12, 2, 1))
    spec = inferred_spec(net, noise(2, 3, 7, 7))
    (channels,) = {spec.axes["0.weight"][0]}
    assert spec.axes["1.weight"] == (channels, None, None, None)
    inside = spec.axes["2.weight"][0]
    assert inside.factors[0] == channels and spec.within == {inside.factors[1]: (channels,)}
    assert spec.axes["3.weight"] == (inside,) and spec.axes["4.weight"][1] == inside


def test_grouped_convolutions_and_group_norms_permute_groups_and_channels_inside_them():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 2, 1)
    )
    spec = inferred_spec(net, noise(2, 3, 8, 8))
    groups, inside, outside = "0.groups", "0.channels", "3.channels"
    assert spec.axes["0.weight"][0] == spec.axes["1.weight"][0] == Product((groups, inside))
    assert spec.axes["3.weight"] == (Product((groups, outside)), inside, None, None)
    assert spec.axes["5.weight"] == (None, Product((groups, outside)), None, None)
    assert spec.within == {inside: (groups,), outside: (groups,)}
    assert spec.sizes == {groups: 4, inside: 2, outside: 3}


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 6), nn.InstanceNorm2d(6, affine=True), nn.BatchNorm2d(6)])
def test_norms_that_treat_channels_alike_permute_them(norm):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.Tanh(), nn.Conv2d(6, 2, 1))
    spec = inferred_spec(net, noise(2, 3, 5, 5))
    assert spec.axes["1.weight"] == spec.axes["1.bias"] == ("0",) and spec.axes["3.weight"][1] == "0"


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6)])
def test_norms_over_features_permute_them(norm):
    spec = inferred_spec(nn.Sequential(nn.Linear(3, 6), norm, nn.Tanh(), nn.Linear(6, 2)), noise(4, 3))
    assert spec.axes["1.weight"] == ("0",) and spec.axes["3.weight"] == (None, "0")


def test_a_norm_from_plain_operations():
    def run(self, x):
        x = self.conv(x)
        x = x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6) * self.scale[None, :, None, None]
        return self.out(torch.maximum(x, self.floor.view(1, -1, 1, 1)))

    net = Computed(
        run,
        conv=nn.Conv2d(3, 4, 3),
        scale=nn.Parameter(torch.ones(4)),
        floor=nn.Parameter(torch.zeros(4)),
        out=nn.Conv2d(4, 2, 1),
    )
    spec = inferred_spec(net, noise(2, 3, 5, 5))
    assert spec.axes["scale"] == spec.axes["floor"] == ("conv",)


def test_transposed_convolutions():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 1, 1),
    )  # fmt: skip
    spec = inferred_spec(net, noise(2, 3, 4, 4))
    assert spec.axes["2.weight"][:2] == ("0", Product(("2.groups", "2.channels")))
    assert spec.axes["4.weight"][:2] == (Product(("2.groups", "2.channels")), "4.channels")
    assert spec.axes["6.weight"][1] == Product(("2.groups", "4.channels"))


def test_pixels_shuffled_out_of_channels():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(2, 1, 1))
    spec = inferred_spec(net, noise(2, 3, 4, 4))
    channels = spec.axes["3.weight"][1]
    assert spec.axes["0.weight"][0] == Product((channels, 4)) and spec.sizes == {channels: 2}


def test_tied_weights_are_one_tensor():
    net = Computed(
        lambda self, x: F.linear(self.mid(self.a(x).relu()).relu(), self.a.weight.T),
        a=nn.Linear(3, 5, bias=False),
        mid=nn.Linear(5, 5),
    )
    spec = inferred_spec(net, noise(2, 3))
    assert spec.axes["mid.weight"] == ("a", "a") and spec.axes["a.weight"] == ("a", None)
    twice = nn.Linear(4, 4)
    shared = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), twice, nn.ReLU(), twice, nn.Linear(4, 2))
    spec = inferred_spec(shared, noise(2, 3))
    assert spec.axes["2.weight"] == spec.axes["4.weight"] == ("0", "0")


def test_weights_by_parametrisation():
    wrap = nn.utils.parametrizations
    net = nn.Sequential(
        wrap.weight_norm(nn.Linear(3, 4)), nn.Tanh(), wrap.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2)
    )
    spec = inferred_spec(net, noise(2, 3))
    assert spec.axes["0.parametrizations.weight.original0"] == ("0", None)
    assert spec.axes["0.parametrizations.weight.original1"] == ("0", None)
    assert spec.axes["2.parametrizations.weight.original"] == ("2", "0")
    assert spec.axes["2.parametrizations.weight.0._u"] == ("2",)
    assert spec.axes["2.parametrizations.weight.0._v"] == ("0",)


def test_bilinear_layers():
    net = Computed(
        lambda self, x: self.d(self.c(self.a(x).tanh(), self.b(x).tanh()).tanh()),
        a=nn.Linear(3, 4), b=nn.Linear(3, 5), c=nn.Bilinear(4, 5, 6), d=nn.Linear(6, 2),
    )  # fmt: skip
    assert inferred_spec(net, noise(2, 3)).axes["c.weight"] == ("c", "a", "b")


def test_experts_permute_and_so_do_the_units_inside_each():
    def run(self, x):
        hidden = (torch.einsum("bi,xij->bxj", x, self.first) + self.shift).relu()
        return (self.gate(x).softmax(-1)[..., None] * torch.einsum("bxj,xjo->bxo", hidden, self.second)).sum(1)

    net = Computed(
        run,
        gate=nn.Linear(3, 4),
        first=nn.Parameter(noise(4, 3, 5)),
        shift=nn.Parameter(noise(4, 5)),
        second=nn.Parameter(noise(4, 5, 2)),
    )
    spec = inferred_spec(net, noise(6, 3))
    assert spec.axes["first"] == ("first", None, "first.channels")
    assert spec.axes["second"] == ("first", "first.channels", None)
    assert spec.axes["shift"] == ("first", "first.channels")
    assert spec.axes["gate.weight"] == ("first", None) and spec.within == {"first.channels": ("first",)}


def test_what_takes_one_element_apart_or_orders_them_stays_fixed():
    net = Computed(lambda self, x: self.b(self.a(x).cumsum(-1)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert inferred_spec(net, noise(2, 3)).permutations == ()
    net = Computed(lambda self, x: self.b(self.a(x)[:, 1:]), a=nn.Linear(3, 4), b=nn.Linear(3, 2))
    spec = inferred_spec(net, noise(2, 3))
    assert spec.axes["a.weight"] == (Concat((1, "a")), None) and spec.axes["b.weight"] == (None, "a")
    net = Computed(lambda self, x: self.b(self.a(x) + torch.arange(4.0)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert inferred_spec(net, noise(2, 3)).permutations == ()
    net = Computed(lambda self, x: self.b(self.a(x) + torch.ones(4)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert inferred_spec(net, noise(2, 3)).permutations == ("a",)


def test_what_is_never_read_is_fixed_and_single_units_have_no_permutation():
    net = Computed(lambda self, x: self.a(x), a=mlp(3, 1, 2), unused=mlp(3, 5, 2))
    assert inferred_spec(net, noise(2, 3)).permutations == ()
