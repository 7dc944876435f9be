"""Rules of operations that only move entries: views, transposes, slices, joins."""

from itertools import accumulate

from wsrl.symmetry.inference.reshape import narrow, select, stack, view
from wsrl.symmetry.inference.rules_pointwise import broadcast, in_order, with_fixed
from wsrl.symmetry.inference.terms import Axis, concat, fix, fixed_axes, new_axis, resolve
from wsrl.symmetry.inference.trace import Call, rule


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten")
def viewed(call: Call) -> list[Axis]:
    """The same entries in the same order in another shape."""
    return view(call.axes("self"), call["self"].shape, call.out_shape)


@rule("t", "transpose", "permute", "movedim", "numpy_T")
def transposed(call: Call) -> list[Axis]:
    """The same axes in another order."""
    axes = list(call.axes("self"))
    if call.name == "permute":
        return [axes[dim % len(axes)] for dim in call["dims"]]
    first, second = (call["dim0"], call["dim1"]) if call.name == "transpose" else (0, -1)
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    return axes


@rule("unsqueeze")
def unsqueezed(call: Call) -> list[Axis]:
    """A new axis of one element."""
    axes = list(call.axes("self"))
    axes.insert(call["dim"] % (len(axes) + 1), ())
    return axes


@rule("squeeze")
def squeezed(call: Call) -> list[Axis]:
    """Axes of one element are gone."""
    axes, wanted = call.axes("self"), call.get("dim")
    wanted = [wanted] if isinstance(wanted, int) else wanted
    dims = range(len(axes)) if wanted is None else [dim % len(axes) for dim in wanted]
    return [axis for dim, axis in enumerate(axes) if dim not in dims or axis]  # in place the tensor has lost them


@rule("expand")
def expanded(call: Call) -> list[Axis]:
    """Single elements are spread out; along them anything may move, for each element of the axes before."""
    axes = call.axes("self")
    axes = [()] * (len(call.out_shape) - len(axes)) + list(axes)
    result: list[Axis] = []
    for axis, size in zip(axes, call.out_shape):
        parents = [atom for before in result for atom in before]
        result.append(axis if axis or size == 1 else new_axis(size, parents))
    return result


@rule("repeat")
def repeated(call: Call) -> list[Axis]:
    """Copies side by side."""
    axes, repeats = call.axes("self"), call["repeats"]
    axes = [()] * (len(repeats) - len(axes)) + list(axes)
    return [(*new_axis(times), *axis) for times, axis in zip(repeats, axes)]


@rule("slice")
def sliced(call: Call) -> list[Axis]:
    """Consecutive elements; a step leaves an axis fixed."""
    axes, (dim,) = call.axes("self"), call.dims("dim")
    size = call["self"].shape[dim]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    if step == 1:
        return narrow(axes, dim, start, max(start, stop))
    fix(axes[dim])
    return with_fixed(axes, dim, call.out_shape[dim])


@rule("select")
def selected(call: Call) -> list[Axis]:
    """One element of an axis."""
    (dim,) = call.dims("dim")
    return select(call.axes("self"), dim, call["index"] % call["self"].shape[dim])


@rule("unbind")
def unbound(call: Call) -> list:
    """Every element of an axis."""
    (dim,) = call.dims("dim")
    return [select(call.axes("self"), dim, index) for index in range(len(call.outputs))]


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk")
def split(call: Call) -> list:
    """Consecutive parts of an axis."""
    (dim,) = call.dims("dim")
    stops = list(accumulate(output.shape[dim] for output in call.outputs))
    return [narrow(call.axes("self"), dim, start, stop) for start, stop in zip([0, *stops], stops)]


@rule("cat", "concatenate")
def joined(call: Call) -> list[Axis]:
    """Axes one after the other."""
    tensors = [tensor for tensor in call["tensors"] if tensor.shape != (0,)]
    dim = call["dim"] % tensors[0].ndim
    operands = [call.table.get(tensor) for tensor in tensors]
    others = broadcast([[*axes[:dim], (), *axes[dim + 1 :]] for axes in operands])
    parts = [resolve(axes[dim]) for axes, tensor in zip(operands, tensors) if tensor.shape[dim]]
    return [*others[:dim], concat(parts), *others[dim + 1 :]]


@rule("stack")
def stacked(call: Call) -> list[Axis]:
    """A new axis whose elements are tensors, each of which may move on its own."""
    return stack([call.table.get(tensor) for tensor in call["tensors"]], call["dim"] % (len(call.out_shape)))


@rule("constant_pad_nd")
def padded(call: Call) -> list[Axis]:
    """A constant before and after, along which anything may move."""
    axes, pad = list(call.axes("self")), call["pad"]
    for k in range(len(pad) // 2):
        before, after = pad[2 * k], pad[2 * k + 1]
        dim = len(axes) - 1 - k
        if min(before, after) < 0:
            fix(axes[dim])
            axes = with_fixed(axes, dim, call.out_shape[dim])
        elif before or after:
            ends = [[new_axis(size)] if size else [] for size in (before, after)]
            axes[dim] = concat([*ends[0], axes[dim], *ends[1]])
    return axes


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def shuffled(call: Call) -> list:
    """Blocks of channels become positions or other channels."""
    axes, shape = call.axes("self"), call["self"].shape
    *batch, size, _, _ = shape
    lead = axes[: len(batch)]
    # channels in groups change places with what is inside the groups
    if call.name == "channel_shuffle":
        groups, inside = view([axes[-3]], [size], [call["groups"], size // call["groups"]])
        return [*lead, (*inside, *groups), *axes[-2:]]
    # positions are fixed; channels are taken apart into blocks of positions, or put together from them
    factor = call.get("upscale_factor", "downscale_factor")
    fix(axes[-1])
    fix(axes[-2])
    positions = fixed_axes(call.out_shape[-2:])
    if call.name == "pixel_unshuffle":
        return [*lead, (*axes[-3], *new_axis(factor**2, fixed=True)), *positions]
    channels, blocks = view([axes[-3]], [size], [size // factor**2, factor**2])
    fix(blocks)
    return [*lead, channels, *positions]


@rule("embedding")
def embedded(call: Call) -> list[Axis]:
    """Rows of a table; which row means which word, so the rows are fixed."""
    _, columns = in_order(call.axes("weight"), [0])
    call.hold("indices")
    return [*fixed_axes(call["indices"].shape), columns]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedded_bag(call: Call) -> list:
    """Sums, means or maxima of rows of a table."""
    _, columns = in_order(call.axes("weight"), [0])
    call.hold("indices", "offsets", "per_sample_weights")
    return call.first([new_axis(call.out_shape[0], fixed=True), columns])
