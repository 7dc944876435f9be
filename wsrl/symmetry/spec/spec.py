"""Which permutations leave a network unchanged: one description of its weights, found by tracing or written by hand.

Letters: B items of a batch, N permutations.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Axis, Within, axis_from_json, axis_to_json, names_in
from wsrl.symmetry.spec.checks import check_pieces, check_weights, check_within, checked_shape, is_batched, written_axes
from wsrl.symmetry.spec.cutting import Piece, join_tensor, pieces_of, split_tensor
from wsrl.symmetry.spec.permute import Permutation, Weights, composed, draw, inverted, move, parents_first
from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.symmetry.spec.unrolling import rolled, unroll, unrolled_spec


@dataclass(frozen=True)
class PermutationSpec:
    """For every axis of every tensor of a network, the permutation that acts on it.

    Attributes:
        axes: For each tensor its axes: None (fixed), the name of a permutation, a ``Product`` or a ``Concat``.
        sizes: Number of elements of each permutation.
        within: For a permutation of something inside the elements of others, such as the channels inside heads: those
            others. There is then one independent permutation for each of their elements.
        shapes: Shape of each tensor; may be left out where sizes tell, that is, where no axis is None.
        held: Names of axes that stay fixed, such as that of stacked networks, with their numbers of elements: what acts
            within one of them has a permutation of its own for each element.

    Raises:
        UserError: An unknown permutation, a size that does not fit, or a permutation that acts within another that its
            tensor does not carry.
    """

    axes: Mapping[str, tuple[Axis, ...]]
    sizes: Mapping[str, int]
    within: Within = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        set_field = object.__setattr__
        set_field(self, "axes", {name: tuple(axes) for name, axes in self.axes.items()})
        set_field(self, "sizes", dict(self.sizes))
        set_field(self, "held", dict(self.held))
        set_field(self, "within", {name: tuple(parents) for name, parents in self.within.items() if parents})
        check_within(self.within, self.sizes, self.held)
        shapes = {n: checked_shape(n, axes, self.shapes.get(n), self.lengths) for n, axes in self.axes.items()}
        set_field(self, "shapes", {name: shape for name, shape in shapes.items() if shape is not None})
        if len(self.shapes) == len(self.axes):
            check_pieces([piece for pieces in self.pieces.values() for piece in pieces], self.within)

    @staticmethod
    def from_module(module: nn.Module, example_inputs: object, **options) -> "PermutationSpec":
        """Find the symmetry of a module by tracing it; see :func:`wsrl.symmetry.inference.inference.infer_module`."""
        from wsrl.symmetry.inference.inference import infer_module

        return infer_module(module, example_inputs, **options)

    @staticmethod
    def from_function(function: Callable, weights: Weights, example_inputs: object, **options) -> "PermutationSpec":
        """Find the symmetry of ``function(weights, *inputs)``.

        See :func:`wsrl.symmetry.inference.inference.infer_function`.
        """
        from wsrl.symmetry.inference.inference import infer_function

        return infer_function(function, weights, example_inputs, **options)

    @classmethod
    def from_layout(cls, layout: Iterable) -> "PermutationSpec":
        """The spec of a layout: an iterable of tensors with ``name``, ``shape`` and ``axes`` (names or None)."""
        tensors = list(getattr(layout, "tensors", layout))
        sizes = {axis: size for tensor in tensors for axis, size in zip(tensor.axes, tensor.shape) if axis is not None}
        return cls({t.name: t.axes for t in tensors}, sizes, {}, {t.name: t.shape for t in tensors})

    @property
    def permutations(self) -> tuple[str, ...]:
        """Names of all permutations."""
        return tuple(self.sizes)

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Number of elements of every name that an axis may carry."""
        return {**self.sizes, **self.held}

    @cached_property
    def pieces(self) -> dict[str, tuple[Piece, ...]]:
        """For each tensor what it is cut into until every axis carries one name or none."""
        lost = [name for name in self.axes if name not in self.shapes]
        if lost:
            raise UserError(
                f"the lengths of the fixed axes of {lost[0]} are unknown",
                allowed="specs with shapes",
                do=f"pass shapes={{{lost[0]!r}: (...)}}, or with_shapes(weights), or sizes in place of None",
            )
        return {name: pieces_of(name, axes, self.shapes[name], self.lengths) for name, axes in self.axes.items()}

    @cached_property
    def plain(self) -> PlainSpec:
        """The spec of what :meth:`split` gives: every axis carries one permutation or none, and nothing is held.

        Raises:
            UserError: More elements are held than are told apart.
        """
        return unrolled_spec([piece for pieces in self.pieces.values() for piece in pieces], self.within, self.held)

    def with_shapes(self, weights: Weights) -> "PermutationSpec":
        """This spec with the shapes of the weights of one network, without a batch axis."""
        return replace(self, shapes={k: tuple(v.shape) for k, v in weights.items()})

    def split(self, weights: Weights, leading: int = 0) -> dict[str, Tensor]:
        """Cut every composite axis.

        Args:
            weights: Tensors ``(L..., *shape, C...)``.
            leading: Number of leading axes L; any trailing ones stay as they are.

        Returns:
            The tensors of :attr:`plain`, with the same leading and trailing axes.
        """
        unrolled = {}
        for name, parts in self.cut(weights, leading).items():
            for piece in self.pieces[name]:
                unrolled.update(unroll(parts[piece.name], piece, self.held, leading))
        return unrolled

    def cut(self, weights: Weights, leading: int = 0) -> dict[str, dict[str, Tensor]]:
        """For each tensor its :attr:`pieces`, as :meth:`split` takes them; held axes are left whole."""
        check_weights(weights, self.axes, self.shapes, leading)
        return {name: split_tensor(tensor, self.pieces[name], leading) for name, tensor in weights.items()}

    def join(self, parts: Mapping[str, Tensor], leading: int = 0) -> dict[str, Tensor]:
        """Undo :meth:`split`.

        Raises:
            UserError: A part of a tensor is missing.
        """
        joined = {}
        if self.held:
            parts = rolled(parts, [piece for pieces in self.pieces.values() for piece in pieces], self.held, leading)
        for name, pieces in self.pieces.items():
            missing = [piece.name for piece in pieces if piece.name not in parts]
            if missing and len(missing) < len(pieces):
                raise UserError(f"{name} cannot be joined without {missing[0]}", allowed="all parts of a tensor")
            if not missing:
                joined[name] = join_tensor(parts, pieces, leading)
        return joined

    def random_permutation(
        self, generator: torch.Generator | None, num: int | None = None, names: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Uniformly random elements of the symmetry group.

        Args:
            generator: Randomness; None for torch's global one.
            num: How many; None for one without a leading axis.
            names: Which permutations to draw; None for all.

        Returns:
            For each permutation an index tensor ``(num, parents..., size)``.
        """
        drawn = self.sizes if names is None else tuple(names)
        lead = () if num is None else (num,)
        return {name: draw((*lead, *self.table_shape(name)), generator) for name in drawn}

    def table_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the index tensor of a permutation: sizes of what it acts within, then its own."""
        return self.table_shapes[name]

    @cached_property
    def table_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the index tensors of all permutations."""
        parents = {name: self.within.get(name, ()) for name in self.sizes}
        return {n: (*(self.lengths[p] for p in parents[n]), size) for n, size in self.sizes.items()}

    def apply(self, weights: Weights, permutation: Permutation, leading: int | None = None) -> dict[str, Tensor]:
        """Move the entries of weights; ``y[i] = x[p[i]]`` along every axis that carries ``p``.

        Args:
            weights: Tensors ``shape`` or ``(B, *shape)``; any of the spec's.
            permutation: Index tensors; with a leading axis B every item has its own. Those left out stay as they are.
            leading: Number of axes before ``shape`` where tensors have further trailing ones; None where they have
                none.
        """
        batched = is_batched(permutation, self.table_shapes)
        leads = {n: t.ndim - len(self.axes.get(n, ())) if leading is None else leading for n, t in weights.items()}
        # lengths of fixed axes that the spec does not tell are those of the weights
        spec = self
        if len(self.shapes) < len(self.axes):
            axes = {name: axes for name, axes in self.axes.items() if name in weights}
            shapes = {n: tuple(weights[n].shape[leads[n] : leads[n] + len(own)]) for n, own in axes.items()}
            spec = replace(self, axes=axes, shapes=shapes)
        moved = {}
        for name, tensor in weights.items():
            lead = leads[name]
            check_weights({name: tensor}, spec.axes, spec.shapes, lead)
            if batched and lead == 0:  # one network, moved by each of the permutations
                tensor, lead = tensor.expand(len(next(iter(permutation.values()))), *tensor.shape), 1
            # a tensor is cut until every axis carries one permutation or none, and put together again
            if any(carried in permutation for axis in spec.axes[name] for carried in names_in(axis)):
                parts, pieces = split_tensor(tensor, spec.pieces[name], lead), spec.pieces[name]
                for piece in pieces:
                    part = parts[piece.name]
                    parts[piece.name] = move(part, piece.axes, permutation, self.within, lead, batched)
                tensor = join_tensor(parts, pieces, lead)
            moved[name] = tensor
        return moved

    def invert(self, permutation: Permutation) -> dict[str, Tensor]:
        """The permutation that undoes another."""
        return inverted(self.completed(permutation), self.within, is_batched(permutation, self.table_shapes))

    def compose(self, last: Permutation, first: Permutation) -> dict[str, Tensor]:
        """One permutation in place of two: ``apply(x, compose(p, q)) == apply(apply(x, q), p)``."""
        batched = is_batched(last, self.table_shapes)
        if batched != is_batched(first, self.table_shapes):
            raise UserError("one of two permutations has a leading axis", allowed="both or none")
        return composed(self.completed(last), self.completed(first), self.within, batched)

    def completed(self, permutation: Permutation) -> dict[str, Tensor]:
        """The permutation with every one that was left out standing still; that of nothing is the identity."""
        lead = next(iter(permutation.values())).shape[:1] if is_batched(permutation, self.table_shapes) else ()
        still = {name: torch.arange(size).expand(*lead, *self.table_shape(name)) for name, size in self.sizes.items()}
        return still | dict(permutation)

    def augment(self, batch: Weights, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Move every item ``(B, *shape)`` of a batch by a random permutation of its own; the networks stay the same."""
        num = len(next(iter(batch.values())))
        return self.apply(batch, self.random_permutation(generator, num))

    def verify(self, module: nn.Module, inputs: object, **options):
        """Prove the spec on a module; see :func:`wsrl.symmetry.inference.verification.verify`."""
        from wsrl.symmetry.inference.verification import verify

        return verify(self, module, inputs, **options)

    def to_json(self) -> dict:
        """Plain values; :meth:`from_json` gives an equal spec."""
        return {
            "axes": {name: [axis_to_json(axis) for axis in axes] for name, axes in self.axes.items()},
            "sizes": dict(self.sizes),
            "within": {name: list(parents) for name, parents in self.within.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            **({"held": dict(self.held)} if self.held else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping) -> "PermutationSpec":
        """Rebuild a spec from :meth:`to_json`."""
        axes = {name: tuple(map(axis_from_json, axes)) for name, axes in data["axes"].items()}
        shapes = {name: tuple(shape) for name, shape in data.get("shapes", {}).items()}
        return cls(axes, data["sizes"], data.get("within", {}), shapes, data.get("held", {}))

    def __str__(self):
        """One line per tensor, then one per permutation."""
        lines = [f"{name} {self.shapes.get(name, '')} {written_axes(axes)}" for name, axes in self.axes.items()]
        for name in [name for name in parents_first(list(self.sizes), self.within) if name in self.sizes]:
            parents = self.within.get(name, ())
            lines.append(f"  {name}: {self.sizes[name]}" + (f" within {', '.join(parents)}" if parents else ""))
        return "\n".join(lines + [f"  {name}: {size} held" for name, size in self.held.items()])
