"""What a permutation spec, its weights and its permutations must be like, and messages for those that are not."""

from collections.abc import Mapping, Sequence

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Axis, Within, axis_size, check_axis
from wsrl.symmetry.spec.cutting import Piece
from wsrl.symmetry.spec.permute import Permutation, Weights, parents_first
from wsrl.symmetry.spec.single_axis import PlainSpec


def check_within(within: Within, sizes: Mapping[str, int], held: Mapping[str, int]) -> None:
    """Refuse names without a size, permutations that act within themselves, and ancestors that are left out."""
    # every name is permuted or held, and has a size
    both = [name for name in held if name in sizes]
    if both:
        raise UserError(f"{both[0]!r} is held and permuted", allowed="one of the two", do="take it out of held")
    for name, parents in within.items():
        unknown = [p for p in (name, *parents) if p not in sizes and (p == name or p not in held)]
        if unknown:
            raise UserError(
                f"within speaks of the permutation {unknown[0]!r}, which has no size",
                allowed=", ".join(sizes),
                do=f"add sizes[{unknown[0]!r}] or take it out of within",
            )
        # parents of parents, all of which must be among the parents
        ancestors, new = set(), set(parents)
        while new - ancestors:
            ancestors |= new
            new = {p for parent in new for p in within.get(parent, ())}
        if name in ancestors:
            raise UserError(f"{name} acts within itself", allowed="parents that are other permutations")
        if ancestors != set(parents):
            raise UserError(
                f"{name} acts within {', '.join(parents)}, and these within others",
                allowed="all ancestors of a permutation in within",
                do=f"set within[{name!r}] to {tuple(parents_first(sorted(ancestors), within))}",
            )


def checked_shape(
    name: str, axes: Sequence[Axis], shape: Sequence[int] | None, lengths: Mapping[str, int]
) -> tuple[int, ...] | None:
    """Shape of a tensor, as it was said or as its axes tell; None where neither does."""
    for i, axis in enumerate(axes):
        check_axis(axis, lengths, f"axis {i} of {name}")
    implied = [axis_size(axis, lengths) for axis in axes]
    if shape is None:
        return None if None in implied else tuple(implied)
    if len(shape) != len(axes) or any(size not in (None, length) for size, length in zip(implied, shape)):
        raise UserError(
            f"{name} of shape {tuple(shape)} is described as {written_axes(axes)}",
            allowed="axes as long as their permutations",
            do=f"mend axes[{name!r}] or sizes",
        )
    return tuple(shape)


def check_pieces(pieces: Sequence[Piece], within: Within) -> None:
    """Refuse what acts within something that does not stand beside it exactly once."""
    for piece in pieces:
        for name in piece.axes:
            twice = [parent for parent in within.get(name, ()) if piece.axes.count(parent) > 1]
            if twice:
                raise UserError(
                    f"{piece.name} carries {name}, which acts within {twice[0]}, and {twice[0]} on two axes",
                    allowed="one axis of each parent beside what acts within it",
                    do=f"give one of the two axes a permutation of its own, or take {name} out of within",
                )
    PlainSpec({piece.name: piece.axes for piece in pieces}, {piece.name: piece.shape for piece in pieces}, within)


def check_weights(weights: Weights, axes: Mapping[str, object], shapes: Mapping[str, tuple], leading: int) -> None:
    """Refuse tensors that a spec does not describe, and those of another shape behind the leading axes."""
    for name, tensor in weights.items():
        if name not in axes:
            raise UserError(
                f"{name} is no tensor of the spec", allowed=", ".join(axes), do="leave it out of the weights"
            )
        shape = shapes.get(name)
        if leading < 0 or (shape is not None and tuple(tensor.shape[leading : leading + len(shape)]) != shape):
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)}",
                allowed=f"{shape}, after {max(leading, 0)} leading axes",
                do="pass weights of the network that the spec describes",
            )


def is_batched(permutation: Permutation, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether every index tensor has a leading axis, that is, every item of a batch a permutation of its own.

    Args:
        permutation: Index tensors.
        shapes: Their shapes without a leading axis.

    Raises:
        UserError: One is unknown or of another shape, or some have a leading axis and others none.
    """
    extra = set()
    for name, table in permutation.items():
        if name not in shapes:
            raise UserError(f"{name} is no permutation of the spec", allowed=", ".join(shapes))
        shape = shapes[name]
        if tuple(table.shape[table.ndim - len(shape) :]) != shape or table.ndim - len(shape) not in (0, 1):
            raise UserError(f"the index of {name} has shape {tuple(table.shape)}", allowed=f"{shape} or (N, ...)")
        extra.add(table.ndim - len(shape))
    if len(extra) > 1:
        raise UserError("some permutations have a leading axis and others none", allowed="all or none")
    return extra == {1}


def written_axes(axes: Sequence[Axis]) -> str:
    """The axes of a tensor on one line; those that are fixed are dots."""
    return f"({', '.join('.' if axis is None else str(axis) for axis in axes)})"
