"""Rules of operations for which the order along an axis matters, or that put entries in an order of their own."""

from torch import Tensor

from wsrl.symmetry.inference.rules_pointwise import broadcast, in_order, mixed, reduced, with_fixed
from wsrl.symmetry.inference.terms import Axis, new_axis, size_of
from wsrl.symmetry.inference.trace import Call, rule


@rule("cumsum cumprod cummax cummin logcumsumexp argmax argmin roll flip triu tril _fft_r2c _fft_c2c _fft_c2r")
def ordered(call: Call) -> list:
    """The order along some axes matters, so they are fixed."""
    axes, ndim = call.axes("self"), call["self"].ndim
    dims = [ndim - 2, ndim - 1] if call.name in ("triu", "tril") else call.dims("dim", "dims")
    axes, results = in_order(axes, dims), []
    for output in call.outputs:
        kept = axes if output.ndim == ndim else [axis for dim, axis in enumerate(axes) if dim not in dims]
        same = [size_of(axis) == size for axis, size in zip(kept, output.shape)]
        results.append([a if keep else new_axis(size, fixed=True) for a, keep, size in zip(kept, same, output.shape)])
    return results


@rule("rot90")
def turned(call: Call) -> list[Axis]:
    """A quarter turn in the plane of two axes."""
    dims = call.dims("dims")
    axes = in_order(call.axes("self"), dims)
    for dim in dims:
        axes[dim] = new_axis(call.out_shape[dim], fixed=True)
    return axes


@rule("sort", "topk", "argsort")
def sorted_entries(call: Call) -> list:
    """Entries by their size, which their order did not matter for, and their places, which it did."""
    (dim,) = call.dims("dim")
    axes = mixed(call.axes("self"), [dim])
    results = [with_fixed(axes, dim, output.shape[dim]) for output in call.outputs]
    call.table.fix_on_use(call.outputs[-1], axes[dim])
    return results


@rule("max", "min", "median", "nanmedian", "mode", "kthvalue")
def extreme(call: Call) -> list:
    """One entry by its size, and its place, which nothing that uses it may move."""
    axes = call.axes("self")
    if "other" in call.arguments:
        return broadcast([axes, call.axes("other")])
    if "dim" not in call.arguments:
        return reduced(axes, range(len(axes)), False)
    (dim,) = call.dims("dim")
    kept = reduced(axes, [dim], bool(call["keepdim"]))
    call.table.fix_on_use(call.outputs[1], axes[dim])
    return [kept, list(kept)]


@rule("histc")
def histogram(call: Call) -> list[Axis]:
    """Numbers of entries by their size."""
    reduced(call.axes("self"), call.dims(), False)
    return [new_axis(call.out_shape[0], fixed=True)]


@rule("bucketize")
def bucketize(call: Call) -> list[Axis]:
    """For every entry the number of boundaries below it; their order matters."""
    call.hold("boundaries")
    return call.axes("self") if isinstance(call["self"], Tensor) else []


@rule("view_as_complex")
def complex_view(call: Call) -> list[Axis]:
    """Pairs of numbers along the last axis become one."""
    return in_order(call.axes("self"), [call["self"].ndim - 1])[:-1]


@rule("view_as_real")
def real_view(call: Call) -> list[Axis]:
    """Complex numbers become pairs along a last axis."""
    return [*call.axes("self"), new_axis(2, fixed=True)]


@rule("cross", "linalg_cross")
def cross(call: Call) -> list[Axis]:
    """Vector products along one axis."""
    dim = call["dim"] if call["dim"] is not None else next(k for k, s in enumerate(call.out_shape) if s == 3)
    axes = broadcast([call.axes("self"), call.axes("other")])
    return in_order(axes, [dim % len(axes)])
