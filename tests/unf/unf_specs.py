"""Specifications of small networks, and what their permutations do, for the tests of layers and networks."""

import torch

from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.basis import Pattern

CASES = {
    "mlp": (
        {"w0": ("a", None), "b0": ("a",), "w1": ("b", "a"), "b1": ("b",), "w2": (None, "b"), "b2": (None,)},
        {"w0": (5, 2), "b0": (5,), "w1": (6, 5), "b1": (6,), "w2": (3, 6), "b2": (3,)},
    ),
    "wide_input": ({"w0": ("a", None), "b0": ("a",), "w1": (None, "a")}, {"w0": (4, 9), "b0": (4,), "w1": (1, 4)}),
    "conv": (
        {"k": ("a", "b", None, None), "n": ("a",), "k2": ("b", "a", None, None), "first": ("b", None, None, None)},
        {"k": (4, 3, 3, 3), "n": (4,), "k2": (3, 4, 1, 1), "first": (3, 3, 3, 3)},
    ),
    "recurrent": ({"hh": ("a", "a"), "ih": ("a", None), "b": ("a",)}, {"hh": (5, 5), "ih": (5, 2), "b": (5,)}),
    "three": ({"t": ("a", "b", "a"), "m": ("b", "a"), "s": ()}, {"t": (3, 4, 3), "m": (4, 3), "s": ()}),
}


def plain_spec(case):
    axes, shapes = CASES[case]
    return PlainSpec(axes, shapes)


def spec_of(case):
    axes, _ = CASES[case]
    return PermutationSpec.from_layout([_Tensor(name, plain_spec(case).shapes[name], axes[name]) for name in axes])


class _Tensor:
    def __init__(self, name, shape, axes):
        self.name, self.shape, self.axes = name, shape, axes


def features(spec, channels, num=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(num, *s, channels, generator=generator, dtype=dtype) for n, s in spec.shapes.items()}


def permutation(spec, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randperm(size, generator=generator) for name, size in spec.sizes.items()}


def move(spec, values, permutation):
    """Permute features ``(B, *shape, C)`` axis by axis: an implementation apart from the library's."""
    moved = {}
    for name, tensor in values.items():
        for index, axis in enumerate(spec.axes[name]):
            if axis is not None:
                tensor = tensor.index_select(index + 1, permutation[axis])
        moved[name] = tensor
    return moved


def one_axis_alone(values, name, index):
    """Turn one axis round and not the others that are tied to it: not a symmetry."""
    return {**values, name: values[name].roll(1, dims=index + 1)}


def apply_term(term: tuple[Pattern, Pattern], values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """One basis term on ``values (B, *in_axes, C)``; gives ``(B, *shape, C)`` with the axes of the output."""
    out, pooled = term
    return out.add_to(values.new_zeros(len(values), *shape, values.shape[-1]), pooled.pool(values))
