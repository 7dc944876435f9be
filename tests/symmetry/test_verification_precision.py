"""Networks that compute in fewer bits inside: right specs pass, wrong ones do not, and broken ties are seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from symmetry_networks import Computed, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry import PermutationSpec
from wsrl.symmetry.inference.double_precision import in_double

SIZE = 48


def narrow_norm(dtype: torch.dtype):
    """The norm of LLaMA and Mamba, which computes in one type whatever it gets."""

    def run(self, x):
        y = self.a(x).to(dtype)
        y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
        return self.b(torch.relu(self.w * y))

    return run


def autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return self.b(torch.relu(self.w * self.a(x)))


def softmax_in_float32(self, x):
    return self.b(self.w * torch.softmax(self.a(x), -1, dtype=torch.float32).type_as(x))


def sums_in_half(self, x):
    return self.b(self.w * self.a(x)) + self.a(x).square().sum(-1, keepdim=True, dtype=torch.float16).double().to(x)


def factories(self, x):
    total = torch.zeros(len(x), SIZE, dtype=torch.float32)
    total += self.a(x)
    return self.b(torch.relu(total * self.w + torch.full((1,), 0.1))) + torch.arange(2.0)


def plain_attribute(self, x):
    return self.b(torch.relu(self.a(x @ self.turn) * self.w))


def complex_numbers(self, x):
    return self.b((self.a(x).to(torch.complex64) * (1 + 0.5j) + 1j).abs().to(x.dtype) * self.w)


INSIDE = {
    "float32": narrow_norm(torch.float32),
    "bfloat16": narrow_norm(torch.bfloat16),
    "half": narrow_norm(torch.float16),
    "autocast": autocast,
    "softmax": softmax_in_float32,
    "sum": sums_in_half,
    "factories": factories,
    "attribute": plain_attribute,
    "complex": complex_numbers,
}


def network(function) -> Computed:
    net = Computed(function, a=nn.Linear(3, SIZE), b=nn.Linear(SIZE, 2), w=nn.Parameter(torch.ones(SIZE)))
    net.turn = noise(3, 3)
    return net


@pytest.mark.parametrize("inside", INSIDE)
def test_precision_inside_does_not_hide_what_is_right_or_wrong(inside):
    """Reported for norms of transformers (LLaMA, Mamba): the right spec was refused for 4e-08."""
    net, x = network(INSIDE[inside]), noise(5, 3)
    spec = PermutationSpec.from_module(net, x)
    assert spec.sizes == {"a": SIZE}
    report = spec.verify(net, x)
    assert report.largest_error < 1e-12 and report.tolerance == 1e-10 and report.ties_seen == ("a",)
    for name, axes in (("w", (None,)), ("a.bias", (None,)), ("b.weight", (None, None))):
        with pytest.raises(UserError, match=r"'a' changes the output by .*at most 1e-10"):
            replace(spec, axes={**spec.axes, name: axes}).verify(net, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_narrow_numbers(dtype):
    net, x = network(narrow_norm(torch.float32)).to(dtype), noise(5, 3).to(dtype)
    net.turn = None
    spec = PermutationSpec.from_module(net, x)
    assert spec.sizes == {"a": SIZE} and spec.verify(net, x).largest_error < 1e-12


def test_rounding_outside_of_torch_is_measured_and_told():
    def run(self, x):
        hidden, weight = (t.detach().numpy().astype(np.float32) for t in (self.a(x), self.b.weight))
        return torch.from_numpy(hidden**2 @ weight.T)

    net, x = network(run), noise(5, 3)
    axes = {"a.weight": ("c", None), "a.bias": ("c",), "b.weight": (None, "c")}
    report = PermutationSpec(axes, {"c": SIZE}).verify(net, x)
    assert 1e-10 < report.largest_error < report.tolerance <= 1e-4 and report.ties_seen == ("c",)
    with pytest.raises(UserError, match="'c' changes the output"):
        PermutationSpec({**axes, "a.bias": (None,)}, {"c": SIZE}).verify(net, x)


def test_the_type_of_new_tensors_is_what_it_was():
    before = torch.get_default_dtype()
    with pytest.raises(ZeroDivisionError), in_double():
        assert torch.ones(3).dtype == torch.ones(3, dtype=torch.float16).dtype == torch.float64
        assert (torch.arange(3) / 2).float().dtype == torch.float64 and torch.arange(3).int().dtype == torch.int32
        raise ZeroDivisionError
    assert torch.get_default_dtype() == before


def test_what_is_written_to_from_outside_is_written():
    counter = torch.zeros(3)
    with in_double():
        counter[1:].add_(torch.ones(2))
    assert counter.tolist() == [0, 1, 1] and counter.dtype == torch.float32
