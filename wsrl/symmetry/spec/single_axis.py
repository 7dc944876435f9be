"""Weights of which every axis carries one permutation or none: what equivariant layers are built on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Within


@dataclass(frozen=True)
class PlainSpec:
    """Which permutation acts on every axis of every tensor.

    Attributes:
        axes: For each tensor the permutation of each of its axes, or None where the axis is fixed.
        shapes: Shape of each tensor for one network.
        within: For a permutation that acts inside the elements of others, such as the channels of a head inside the
            heads: those others. There is then one permutation for each of their elements.

    Raises:
        UserError: An axis has no name, two axes of one permutation have different lengths, or the parent of a
            permutation is no axis of a tensor that carries it.
    """

    axes: Mapping[str, tuple[str | None, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    within: Within = field(default_factory=dict)

    def __post_init__(self):
        for name, axes in self.axes.items():
            shape = self.shapes.get(name, ())
            if len(axes) != len(shape):
                raise UserError(
                    f"{name} of shape {tuple(shape)} is described by {len(axes)} axes",
                    allowed="one permutation name or None for each axis",
                    do=f"mend the axes of {name}",
                )
            for axis in axes:
                lost = [parent for parent in self.within.get(axis, ()) if parent not in axes]
                if lost:
                    raise UserError(
                        f"{name} carries {axis}, which acts within {lost[0]}, but no axis of {lost[0]}",
                        allowed="tensors that carry a permutation together with its parents",
                        do=f"take {lost[0]} out of within[{axis!r}], or mend the axes of {name}",
                    )
        self.sizes  # noqa: B018  (checks that lengths agree)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the axes of each permutation."""
        sizes: dict[str, int] = {}
        for name, axes in self.axes.items():
            for axis, size in zip(axes, self.shapes[name]):
                if axis is not None and sizes.setdefault(axis, size) != size:
                    raise UserError(
                        f"{axis} acts on axes of {sizes[axis]} and of {size} elements (in {name})",
                        allowed="axes of one length for each permutation",
                        do=f"give the axis of {name} a permutation of its own",
                    )
        return sizes
