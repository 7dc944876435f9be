"""Rules of operations that take entries from indices or put them there: gathers, windows, segments, sparse tensors.

An axis along which there are indices is fixed; all others stay as free as they are. As tensors sparse ones move like
dense ones.
"""

from collections.abc import Sequence

from torch import Tensor

from wsrl.symmetry.inference.reshape import EXPLODED, depends, narrow, select, stack
from wsrl.symmetry.inference.rules_masks import MASKS, masked_axis
from wsrl.symmetry.inference.rules_pointwise import broadcast, in_order, with_fixed
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, fix, fixed_axes, new_axis, resolve, size_of
from wsrl.symmetry.inference.trace import Call, UnfollowedError, rule


@rule("index", "_unsafe_index", "_unsafe_masked_index")
def indexed(call: Call) -> list[Axis]:
    """Elements at indices, or those that a mask chooses."""
    axes = call.axes("self")
    lists = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    stacked = separate_networks(call, axes, *lists[0]) if len(lists) == 1 else None
    return _taken(call, axes, call.out_shape) if stacked is None else stacked


def separate_networks(call: Call, axes: list[Axis], dim: int, index: Tensor) -> list[Axis] | None:
    """Stacked networks at indices, each with what acts within it; None where they are not told apart.

    That takes one list of indices, the same for all tensors of the trace and with every network in it: only so are
    tensors tied network by network whatever the indices are.
    """
    size = call["self"].shape[dim]
    if index.dtype in MASKS or index.ndim != 1 or not size <= len(index) <= EXPLODED or not depends(axes, axes[dim]):
        return None
    positions = index.tolist()
    if len({position % size for position in positions}) < size or not call.table.is_only_index(index):
        return None
    call.table.hold(index)
    return stack([select(axes, dim, position % size) for position in positions], dim)


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: Call) -> list[Axis]:
    """Values at indices, or at those that a mask chooses."""
    shape = call["self"][tuple(slice(None) if index is None else index for index in call["indices"])].shape
    axes = call.axes("self")  # once, for a constant may have other axes each time that it is used
    broadcast([_taken(call, axes, shape), call.axes("values")])
    return [resolve(axis) for axis in axes]


def _taken(call: Call, axes: list[Axis], shape: Sequence[int]) -> list[Axis]:
    """Axes of ``self[indices]``, of a known shape."""
    indices = list(call["indices"])
    there = [k for k, index in enumerate(indices) if index is not None]
    if len(there) == 1 and indices[there[0]].dtype in MASKS:
        mask, first = indices[there[0]], there[0]
        return [*axes[:first], masked_axis(call, axes, mask, first, shape[first]), *axes[first + mask.ndim :]]
    # axes along which there are indices: a mask among them is one list of indices for each of its axes
    dims, dim = [], 0
    for index in indices:
        if index is not None:
            call.table.hold(index)
        width = index.ndim if index is not None and index.dtype in MASKS else 1
        dims += [] if index is None else range(dim, dim + width)
        dim += width
    in_order(axes, dims)
    # the axes of the lists of indices stand in their stead, or in front where these are not side by side
    kept = [axis for dim, axis in enumerate(axes) if dim not in dims]
    num_new = len(shape) - len(kept)
    first = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    return [*kept[:first], *fixed_axes(shape[first : first + num_new]), *kept[first:]]


@rule("gather")
def gathered(call: Call) -> list[Axis]:
    """Entries at indices along one axis, which may be others for every element of the other axes."""
    (dim,) = call.dims("dim")
    shape = call["index"].shape
    others = broadcast([_beside(call.axes(name), dim, shape) for name in ("self", "index")])
    return with_fixed(others, dim, shape[dim])


@rule("scatter", "scatter_add", "scatter_reduce")
def scattered(call: Call) -> list[Axis]:
    """Entries put to indices along one axis, which may be others for every element of the other axes."""
    (dim,) = call.dims("dim")
    axes = call.axes("self")
    broadcast([_beside(own, dim, call["index"].shape) for own in (axes, *call.present("index", "src"))])
    return [resolve(axis) for axis in axes]


@rule("index_add", "index_copy", "index_reduce", "index_fill")
def index_added(call: Call) -> list[Axis]:
    """Slices put to indices along one axis."""
    (dim,) = call.dims("dim")
    call.hold("index")
    axes = call.axes("self")
    broadcast([_beside(own, dim) for own in (axes, *call.present("source"))])
    return [resolve(axis) for axis in axes]


def _beside(axes: Sequence[Axis], dim: int, shape: Sequence[int] | None = None) -> list[Axis]:
    """All axes but one, which is fixed; of each as many first elements as a shape says."""
    in_order(axes, [dim])
    for other in range(len(axes)):
        if shape is not None and other != dim:
            axes = narrow(axes, other, 0, shape[other])
    return [*axes[:dim], (), *axes[dim + 1 :]]


@rule("index_select")
def index_selected(call: Call) -> list[Axis]:
    """Elements of one axis at indices."""
    (dim,) = call.dims("dim")
    stacked = separate_networks(call, call.axes("self"), dim, call["index"])
    if stacked is not None:
        return stacked
    call.hold("index")
    axes = in_order(call.axes("self"), [dim])
    return with_fixed(axes, dim, call.out_shape[dim])


@rule("select_scatter", "slice_scatter")
def part_replaced(call: Call) -> list[Axis]:
    """One element, or consecutive ones, of an axis replaced."""
    (dim,) = call.dims("dim")
    axes, size = call.axes("self"), call["self"].shape[dim]
    if call.name == "select_scatter":
        broadcast([select(axes, dim, call["index"] % size), call.axes("src")])
        return [resolve(axis) for axis in axes]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    if step == 1:
        broadcast([narrow(axes, dim, start, max(start, stop)), call.axes("src")])
    else:
        broadcast([_beside(axes, dim), _beside(call.axes("src"), dim)])
    return [resolve(axis) for axis in axes]


@rule("unfold")
def windows(call: Call) -> list[Axis]:
    """Windows along one axis: their number there, and what is inside a window at the end."""
    (dim,) = call.dims("dimension")
    axes = in_order(call.axes("self"), [dim])
    return [*with_fixed(axes, dim, call.out_shape[dim]), new_axis(call.out_shape[-1], fixed=True)]


@rule("diagonal", "diagonal_copy")
def diagonal(call: Call) -> list[Axis]:
    """Entries at the same place of two axes, which then move alike, or at places some steps apart."""
    axes = call.axes("self")
    first, second = call["dim1"] % len(axes), call["dim2"] % len(axes)
    kept = [axis for dim, axis in enumerate(axes) if dim not in (first, second)]
    if call["offset"] or size_of(axes[first]) != size_of(axes[second]):
        in_order(axes, [first, second])
        return [*kept, new_axis(call.out_shape[-1], fixed=True)]
    unify(axes[first], axes[second])
    return [*kept, resolve(axes[first])]


@rule("diag_embed")
def diagonal_embedded(call: Call) -> list[Axis]:
    """The last axis becomes two, off whose diagonal there are zeros."""
    *axes, last = call.axes("self")
    dims = sorted(call[name] % (len(axes) + 2) for name in ("dim1", "dim2"))
    if call["offset"]:
        fix(last)
        last = new_axis(call.out_shape[dims[0]], fixed=True)
    for dim in dims:
        axes.insert(dim, resolve(last))
    return axes


@rule("segment_reduce")
def segments(call: Call) -> list[Axis]:
    """Sums, means or extremes of consecutive elements of one axis."""
    dim = call["axis"] % call["data"].ndim
    call.hold("lengths", "indices", "offsets")
    axes = in_order(call.axes("data"), [dim])
    return with_fixed(axes, dim, call.out_shape[dim])


@rule("_sparse_coo_tensor_with_dims_and_tensors", "_sparse_coo_tensor_unsafe", "sparse_coo_tensor")
def sparse(call: Call) -> list[Axis]:
    """A sparse tensor of entries at given indices; what is stored whole at each of them moves on."""
    call.hold("indices")
    _, *dense = in_order(call.axes("values"), [0])
    num_sparse = len(call.out_shape) - len(dense)
    return [*fixed_axes(call.out_shape[:num_sparse]), *dense]


@rule("_sparse_compressed_tensor_unsafe _sparse_csr_tensor_unsafe sparse_compressed_tensor _values values bincount")
def stored(call: Call) -> list[Axis]:
    """Entries in the order in which a sparse tensor stores them, or numbers of equal ones: nothing may move."""
    for tensor in call.tensors:
        call.table.hold(tensor)
    return fixed_axes(call.out_shape)


@rule("take", "put")
def numbered(call: Call) -> list[Axis]:
    """Entries by their number in the whole tensor, which no axis keeps."""
    raise UnfollowedError("entries are named by their number in the whole tensor")


@rule("as_strided")
def strided(call: Call) -> list[Axis]:
    """Any view of memory; only the same one is followed."""
    shape, strides, offset = call.table.geometry(call["self"])
    used = [(a, b) for size, a, b in zip(shape, strides, call["stride"]) if size > 1]
    if shape == tuple(call["size"]) and all(a == b for a, b in used) and call["storage_offset"] in (None, offset):
        return call.axes("self")
    raise UnfollowedError("it views memory by strides")
