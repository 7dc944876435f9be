"""Rules of operations that sum products: matrix products, convolutions; and of what is done to positions."""

from collections.abc import Sequence

from wsrl.symmetry.inference.reshape import cut_children, cut_foreign, view
from wsrl.symmetry.inference.rules_pointwise import broadcast, in_order
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, fix, fixed_axes, new_axis, resolve, size_of
from wsrl.symmetry.inference.trace import Call, UnfollowedError, regrouped, rule


def contract(first: Axis, second: Axis, batch: Sequence[Axis], kept: Sequence[Axis]) -> None:
    """Sum over two axes that move alike.

    Args:
        first: Axis of the one operand.
        second: Axis of the other.
        batch: Axes that both operands have and that stay, aligned.
        kept: All axes that stay.
    """
    unify(first, second)
    axis = resolve(first)
    cut_foreign(axis, batch)
    cut_children(kept, [axis])


def product(left: list[Axis], right: list[Axis]) -> list[Axis]:
    """Matrix product of the last two axes; axes before them are aligned."""
    *first, rows, inner = left
    *second, other, columns = right
    batch = broadcast([first, second]) if first or second else []
    contract(inner, other, batch, [*batch, rows, columns])
    return [*map(resolve, batch), rows, columns]


@rule("mm", "bmm", "matmul")
def matrix_product(call: Call) -> list[Axis]:
    """``self @ mat2``."""
    return product(call.axes("self"), call.axes("mat2", "other"))


@rule("addmm", "baddbmm", "_sparse_addmm", "sspaddmm", "hspmm")
def added_product(call: Call) -> list[Axis]:
    """``self + left @ right``, or the product alone."""
    left, right = call.axes("mat1", "batch1"), call.axes("mat2", "batch2")
    return broadcast([product(left, right), *call.present("self")])


@rule("_sparse_mm")
def sparse_product(call: Call) -> list[Axis]:
    """``sparse @ dense``; sums only."""
    if call.get("reduce") not in (None, "sum"):
        raise UnfollowedError(f"it reduces by {call['reduce']}")
    return product(call.axes("sparse"), call.axes("dense"))


@rule("mv", "addmv", "dot", "vdot", "outer", "ger", "addr")
def vectors(call: Call) -> list[Axis]:
    """Products with vectors."""
    if call.name in ("outer", "ger", "addr"):
        axes = [call.axes("vec1", "self")[0], call.axes("vec2")[0]]
    elif call.name in ("dot", "vdot"):
        contract(call.axes("self")[0], call.axes("tensor", "other")[0], [], [])
        return []
    else:
        rows, inner = call.axes("mat", "self")
        contract(inner, call.axes("vec")[0], [], [rows])
        axes = [rows]
    return broadcast([axes, call.axes("self")]) if call.name.startswith("add") else axes


@rule("linear")
def linear(call: Call) -> list[Axis]:
    """``input @ weight.T + bias``."""
    rows, inner = call.axes("weight")
    *others, last = call.axes("input")
    contract(last, inner, [], [*others, rows])
    return broadcast([[*others, rows], *call.present("bias")])


@rule("linalg_inv_ex")
def inverse(call: Call) -> list:
    """The inverse's rows move like the columns of the matrix, and its columns like the rows."""
    return call.first(_inverted(call.axes("A")))


def _inverted(matrix: list[Axis]) -> list[Axis]:
    """Axes of an inverse: neither rows nor columns of the matrix have anything that acts within them."""
    *others, rows, columns = matrix
    cut_children([*others, columns], [rows])
    cut_children([*others, rows], [columns])
    return [*others, columns, rows]


@rule("_linalg_solve_ex")
def solved(call: Call) -> list:
    """``X`` of ``A @ X = B``."""
    matrix, right = call.axes("A"), call.axes("B")
    if not call["left"] or call["B"].shape == call["A"].shape[:-1] or len(right) < 2:
        raise UnfollowedError("it solves for a vector, or from the right")
    return call.first(product(_inverted(matrix), right))


@rule("_trilinear")
def trilinear(call: Call) -> list[Axis]:
    """Product of three tensors with new axes, summed over some."""
    operands = []
    for k in (1, 2, 3):
        axes = list(call.axes(f"i{k}"))
        for dim in sorted(call[f"expand{k}"]):
            axes.insert(dim, ())
        operands.append(axes)
    axes = broadcast(operands)
    dims = [dim % len(axes) for dim in call["sumdim"]]
    kept = [axis for dim, axis in enumerate(axes) if dim not in dims]
    for dim in dims:
        cut_foreign(axes[dim], kept)
    cut_children(kept, [axes[dim] for dim in dims])
    return kept


@rule("convolution", "_convolution", "mkldnn_convolution")
def convolution(call: Call) -> list[Axis]:
    """Channels are contracted within groups; positions are fixed."""
    image, weight, groups = call.axes("input"), call.axes("weight"), call["groups"]
    for axis in (*image[2:], *weight[2:]):
        fix(axis)
    # channels and filters as groups and what is inside a group, of which the groups move alike
    rows = size_of(weight[0])
    group, inside = regrouped(image[1], [groups, size_of(image[1]) // groups])
    weight_group, filters = regrouped(weight[0], [groups, rows // groups])
    unify(group, weight_group)
    group, channels = resolve(group), weight[1]
    if call.get("transposed"):
        filters, channels = channels, filters
    # inside each group channels are summed over; the filters of all groups are the channels that come out
    out = (*group, *filters)
    contract(inside, channels, [group], [image[0], group, filters])
    cut_children([image[0], group, filters], [*image[2:], *weight[2:]])
    for bias in call.present("bias"):
        unify(out, bias[0])
    return [image[0], resolve(out), *fixed_axes(call.out_shape[2:])]


POSITIONS = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    "max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "upsample_linear1d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d max_pool2d max_pool1d max_pool3d "
    "grid_sampler_2d grid_sampler_3d"
)
def positions(call: Call) -> list:
    """The last axes are positions, which are fixed; those before are left alone."""
    num = next(n for text, n in POSITIONS.items() if text.rstrip("d") in call.name)
    axes = call.axes("self", "input")
    for tensor in call.tensors:
        if tensor is not call.get("self", "input"):
            call.table.hold(tensor)
    for axis in axes[-num:]:
        fix(axis)
    cut_children(axes[:-num], axes[-num:])
    return [[*axes[:-num], *fixed_axes(out.shape[-num:])] for out in call.outputs]


@rule("max_unpool2d", "max_unpool3d")
def unpooled(call: Call) -> list[Axis]:
    """Entries put back to the places of maxima."""
    num = 2 if call.name == "max_unpool2d" else 3
    axes = broadcast([call.axes("self"), call.axes("indices")])
    in_order(axes, range(len(axes) - num, len(axes)))
    return [*axes[:-num], *fixed_axes(call.out_shape[-num:])]


@rule("im2col")
def unfolded(call: Call) -> list[Axis]:
    """Patches: channels times places in a patch, and patches."""
    axes = call.axes("self")
    fix(axes[-1])
    fix(axes[-2])
    cut_children(axes[:-2], axes[-2:])
    kernel_size = call["kernel_size"][0] * call["kernel_size"][1]
    return [*axes[:-3], (*axes[-3], *new_axis(kernel_size, fixed=True)), new_axis(call.out_shape[-1], fixed=True)]


@rule("col2im")
def folded(call: Call) -> list[Axis]:
    """Patches put back: what :func:`unfolded` undoes."""
    axes = call.axes("self")
    kernel_size = call["kernel_size"][0] * call["kernel_size"][1]
    channels, inside = view([axes[-2]], [size_of(axes[-2])], [size_of(axes[-2]) // kernel_size, kernel_size])
    for axis in (axes[-1], inside):
        fix(axis)
    cut_children([*axes[:-2], channels], [axes[-1], inside])
    return [*axes[:-2], channels, *fixed_axes(call.out_shape[-2:])]


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")
def attention(call: Call) -> list:
    """Softmax of queries times keys, times values."""
    queries, keys, values = (call.axes(name) for name in ("query", "key", "value"))
    scores = product(queries, [*keys[:-2], keys[-1], keys[-2]])
    scores = broadcast([scores, *call.present("attn_mask")])
    cut_children(scores[:-1], [scores[-1]])
    return call.first(product(scores, values))
