"""Agreement with the specs that git re-basin publishes (arXiv 2209.04836, its code): which axes move together."""

import time

import pytest
import torch
from symmetry_networks import mlp, noise, resnet20, resnet50, vgg16
from torch import nn

from wsrl.symmetry.spec.spec import PermutationSpec


def agrees(spec: PermutationSpec, published: dict[str, tuple]) -> None:
    """Check that the weights move alike up to the names of permutations."""
    pairs = {(spec.axes[name][dim], p) for name, axes in published.items() for dim, p in enumerate(axes)}
    ours = [pair[0] for pair in pairs]
    theirs = [pair[1] for pair in pairs]
    assert len(ours) == len(set(ours)) == len(set(theirs)), "one permutation of ours for each of theirs"
    assert (None, None) in pairs or None not in theirs
    assert set(spec.permutations) == {name for name in ours if name is not None}


def chain(names: list[str], ndim: int = 2) -> dict[str, tuple]:
    """Layers one after the other, as in the published specs of perceptrons and VGG."""
    spec = {}
    for k, name in enumerate(names):
        out, into = (None if k == len(names) - 1 else f"P_{k}"), (None if k == 0 else f"P_{k - 1}")
        spec |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    return spec


def test_mlp():
    net = mlp(7, 6, 5, 6, 3, activation=nn.ReLU)
    agrees(PermutationSpec.from_module(net, noise(2, 7)), chain(["0", "2", "4", "6"]))


def test_vgg16():
    net = vgg16()
    names = [name for name, part in net.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    assert len(names) == 16
    spec = PermutationSpec.from_module(net, noise(1, 3, 32, 32))
    agrees(spec, chain(names))
    assert len(spec.permutations) == 15


def norm(name: str, perm: str) -> dict[str, tuple]:
    return {f"{name}.{key}": (perm,) for key in ("weight", "bias", "running_mean", "running_var")}


def published_resnet(num_blocks: tuple[int, ...], num_convs: int) -> dict[str, tuple]:
    """Stream ``P_bg<stage>`` through the shortcuts of a stage, one permutation after each inner convolution."""
    spec = {"conv1.weight": ("P_bg0", None, None, None), **norm("bn1", "P_bg0")}
    stream = "P_bg0"
    for stage, depth in enumerate(num_blocks):
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            projected = block == 0 and (stage > 0 or num_convs == 3)
            out = f"P_stage{stage}" if projected else stream
            path = [stream, *(f"P_{name}_inner{k}" for k in range(num_convs - 1)), out]
            for k in range(num_convs):
                spec[f"{name}.conv{k + 1}.weight"] = (path[k + 1], path[k], None, None)
                spec |= norm(f"{name}.bn{k + 1}", path[k + 1])
            if projected:
                spec[f"{name}.shortcut.0.weight"] = (out, stream, None, None)
                spec |= norm(f"{name}.shortcut.1", out)
            stream = out
    return {**spec, "linear.weight": (None, stream), "linear.bias": (None,)}


def test_resnet20():
    spec = PermutationSpec.from_module(resnet20(), noise(1, 3, 16, 16))
    agrees(spec, published_resnet((3, 3, 3), 2))
    assert len(spec.permutations) == 3 + 9


@pytest.mark.slow
def test_resnet50():
    net = resnet50()
    start = time.perf_counter()
    spec = PermutationSpec.from_module(net, noise(1, 3, 16, 16))
    assert time.perf_counter() - start < 30  # seconds; it takes about one
    agrees(spec, published_resnet((3, 4, 6, 3), 3))
    assert len(spec.permutations) == 1 + 4 + 2 * 16


def test_resnet20_is_proved():
    net = resnet20()
    spec = PermutationSpec.from_module(net, noise(1, 3, 16, 16))
    report = spec.verify(net, noise(2, 3, 16, 16), trials=2)
    assert report.largest_error <= 1e-10 and report.ties_seen == spec.permutations
    assert torch.is_grad_enabled()
