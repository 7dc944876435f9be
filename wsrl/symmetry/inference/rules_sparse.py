"""Rules of sparse tensors: what they are made of, and products with them. As tensors they move like dense ones."""

from wsrl.symmetry.inference.rules_linear import product
from wsrl.symmetry.inference.rules_pointwise import broadcast, in_order, reduced
from wsrl.symmetry.inference.terms import Axis, fixed_axes
from wsrl.symmetry.inference.trace import Call, UnfollowedError, rule


@rule("_sparse_coo_tensor_with_dims_and_tensors", "_sparse_coo_tensor_unsafe", "sparse_coo_tensor")
def made(call: Call) -> list[Axis]:
    """Entries at given places; what is stored whole at each place moves on."""
    call.hold("indices")
    _, *dense = in_order(call.axes("values"), [0])
    num_sparse = len(call.out_shape) - len(dense)
    return [*fixed_axes(call.out_shape[:num_sparse]), *dense]


@rule("_sparse_compressed_tensor_unsafe", "_sparse_csr_tensor_unsafe", "sparse_compressed_tensor", "_values", "values")
def compressed(call: Call) -> list[Axis]:
    """Entries by the order in which they are stored; nothing of a plain list of them may move."""
    for tensor in call.tensors:
        call.table.hold(tensor)
    return fixed_axes(call.out_shape)


@rule("_sparse_mm")
def sparse_product(call: Call) -> list[Axis]:
    """``sparse @ dense``; sums only."""
    if call.get("reduce") not in (None, "sum"):
        raise UnfollowedError(f"it reduces by {call['reduce']}")
    return product(call.axes("sparse"), call.axes("dense"))


@rule("_sparse_addmm", "sspaddmm", "hspmm")
def sparse_added(call: Call) -> list[Axis]:
    """``self + mat1 @ mat2`` of a sparse ``mat1``."""
    return broadcast([product(call.axes("mat1"), call.axes("mat2")), *call.present("self")])


@rule("_sparse_sum")
def sparse_sum(call: Call) -> list[Axis]:
    """Sums along some axes of a sparse tensor."""
    return reduced(call.axes("self"), call.dims("dim"), False)
