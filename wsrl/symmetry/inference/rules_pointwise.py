"""Rules of operations that act on every entry, and of those that reduce or normalise along axes."""

from collections.abc import Sequence

from wsrl.symmetry.inference.reshape import cut_children, narrow
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, fix, new_axis, resolve
from wsrl.symmetry.inference.trace import Call, regrouped, rule


def broadcast(operands: Sequence[Sequence[Axis]]) -> list[Axis]:
    """Axes of the result of operands whose axes are aligned at the end and move alike."""
    ndim = max(len(axes) for axes in operands)
    result: list[Axis] = []
    for dim in range(-ndim, 0):
        aligned = [axes[dim] for axes in operands if len(axes) >= -dim and axes[dim]]
        for other in aligned[1:]:
            unify(aligned[0], other)
        result.append(resolve(aligned[0]) if aligned else ())
    return result


@rule(
    "pointwise masked_fill _prelu_kernel copy addcmul addcdiv lerp where _to_copy clone detach alias lift_fresh "
    "contiguous _conj _neg_view resolve_conj resolve_neg conj_physical complex polar nan_to_num frac to_dense "
    "_to_dense _to_sparse _to_sparse_csr _to_sparse_csc coalesce _coalesce _coalesced"
)
def pointwise(call: Call) -> list[Axis]:
    """Entries are computed from entries at the same place."""
    return broadcast([call.table.get(tensor) for tensor in call.tensors])[-len(call.out_shape) or None :]


@rule("sum mean prod amax amin logsumexp var std linalg_vector_norm norm any all nansum count_nonzero _sparse_sum")
def reduce(call: Call) -> list[Axis]:
    """All entries along some axes become one."""
    return reduced(call.axes("self"), call.dims("dim"), bool(call.get("keepdim")))


@rule("var_mean", "std_mean", "aminmax")
def two_statistics(call: Call) -> list:
    """Two statistics along the same axes."""
    kept = reduce(call)
    return [kept, list(kept)]


@rule("dist")
def distance(call: Call) -> list[Axis]:
    """Norm of a difference."""
    return reduced(broadcast([call.axes("self"), call.axes("other")]), range(call["self"].ndim), False)


def reduced(axes: Sequence[Axis], dims: Sequence[int], keep: bool) -> list[Axis]:
    """Axes of a tensor of which all entries along some axes became one, whatever their order."""
    others = [axis for dim, axis in enumerate(axes) if dim not in dims]
    cut_children(others, [axes[dim] for dim in dims])
    if keep:
        return [() if dim in dims else axis for dim, axis in enumerate(axes)]
    return others


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "_sparse_softmax", "_sparse_log_softmax")
def softmax(call: Call) -> list[Axis]:
    """Entries along one axis are normalised together."""
    (dim,) = call.dims("dim")
    return mixed(call.axes("self"), [dim])


def mixed(axes: list[Axis], dims: Sequence[int]) -> list[Axis]:
    """Axes of a tensor that an operation mixes along some of its axes without regard to their order."""
    cut_children([axis for dim, axis in enumerate(axes) if dim not in dims], [axes[dim] for dim in dims])
    return axes


def in_order(axes: list[Axis], dims: Sequence[int]) -> list[Axis]:
    """Axes of a tensor for which the order along some of its axes matters: nothing moves along those."""
    mixed(axes, dims)
    for dim in dims:
        fix(axes[dim])
    return [resolve(axis) for axis in axes]


def with_fixed(axes: Sequence[Axis], dim: int, size: int) -> list[Axis]:
    """The axes with a new one, along which nothing may move, in place of one of them."""
    return [*axes[:dim], new_axis(size, fixed=True), *axes[dim + 1 :]]


@rule("renorm")
def renorm(call: Call) -> list[Axis]:
    """Slices along one axis are scaled by their norms."""
    axes = call.axes("self")
    return mixed(axes, [dim for dim in range(len(axes)) if dim != call["dim"] % len(axes)])


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> list:
    """The last axes are normalised together and scaled entry by entry."""
    axes = call.axes("input")
    axes = mixed(axes, range(len(axes) - len(call["normalized_shape"]), len(axes)))
    return call.first(broadcast([axes, *call.present("weight", "bias")]))


@rule("native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit batch_norm cudnn_batch_norm")
def batch_norm(call: Call) -> list:
    """Each channel is normalised over batch and positions."""
    axes = call.axes("input")
    axes = mixed(axes, [dim for dim in range(len(axes)) if dim != 1])
    for own in call.present("weight", "bias", "running_mean", "running_var"):
        unify(axes[1], own[0])
    return call.first(axes)


@rule("native_group_norm")
def group_norm(call: Call) -> list:
    """Channels are normalised within groups."""
    axes, size, num = call.axes("input"), call["C"], call["group"]
    groups, inside = regrouped(axes[1], [num, size // num])
    for own in call.present("weight", "bias"):
        unify((*groups, *inside), own[0])
    out = [axes[0], (*groups, *inside), *axes[2:]]
    cut_children([out[0]], [inside, *axes[2:]])
    cut_children([groups], [inside, *axes[2:]])
    return call.first(out)


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> list:
    """Rows of ``v`` are scaled to the lengths ``g``."""
    axes = broadcast([call.axes("v"), call.axes("g")])
    mixed(axes, [dim for dim in range(len(axes)) if dim != call["dim"] % len(axes)])
    return call.first(axes)


@rule("glu")
def glu(call: Call) -> list[Axis]:
    """One half of an axis gates the other."""
    axes, (dim,) = call.axes("self"), call.dims("dim")
    half = call.out_shape[dim]
    first = narrow(axes, dim, 0, half)
    return broadcast([first, narrow(call.axes("self"), dim, half, 2 * half)])
