"""The unknowns of inference: axes of tensors as terms of unknown permutations, which operations make equal or fix.

An axis is a row-major product of atoms, outermost first; an axis of one element is the empty product. An atom stands
for elements that one permutation moves. It is free at first, and may later turn out to be

- ``fixed``: nothing may move it;
- a product of other atoms, or another atom: what two views of one axis have in common;
- a concatenation of other axes: parts that move on their own.

An atom with parents is one independent permutation for each element of its parents. Where a parent turns out to be a
concatenation, such an atom is a *family*: one member for each part of the parent.

Everything that is found out makes the group of allowed permutations smaller or leaves it: what was sound stays sound.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import prod

Axis = tuple["Atom", ...]


class Atom:
    """Elements that one permutation moves.

    Attributes:
        size: Number of elements, at least 2.
        parents: Atoms for each of whose elements there is an independent permutation.
        label: Word for its name, such as ``heads``; empty where the tensor's name will do.
        fixed: Whether it may not move.
        product: What it turned out to be a product of.
        parts: What it turned out to be a concatenation of.
        members: For a family, its axis for each of :attr:`parts`, which are then those of :attr:`over`.
        over: For a family, the parent that is a concatenation.
    """

    __slots__ = ("fixed", "label", "members", "over", "parents", "parts", "product", "size")

    def __init__(self, size: int, parents: Sequence["Atom"] = (), label: str = "", fixed: bool = False):
        assert size > 1, "axes of one element have no atoms"
        self.size, self.parents, self.label, self.fixed = size, tuple(parents), label, fixed
        self.product: Axis | None = None
        self.parts: tuple[Axis, ...] | None = None
        self.members: tuple[Axis, ...] | None = None
        self.over: Atom | None = None

    @property
    def free(self) -> bool:
        """Whether nothing is known about it."""
        return not self.fixed and self.product is None and self.parts is None

    @property
    def is_concat(self) -> bool:
        """Whether it is a concatenation."""
        return self.parts is not None and self.members is None

    @property
    def is_family(self) -> bool:
        """Whether it has a member for each part of a parent."""
        return self.members is not None


def new_axis(size: int, parents: Sequence[Atom] = (), label: str = "", fixed: bool = False) -> Axis:
    """An axis that is one new atom, or nothing for a single element."""
    return (Atom(size, parents, label, fixed),) if size > 1 else ()


def fixed_axes(sizes: Iterable[int]) -> list[Axis]:
    """New axes of some lengths along which nothing may move."""
    return [new_axis(size, fixed=True) for size in sizes]


def size_of(axis: Iterable[Atom]) -> int:
    """Number of elements of an axis."""
    return prod(atom.size for atom in axis)


def resolve(axis: Iterable[Atom]) -> Axis:
    """The axis in terms of atoms that are free, fixed, concatenations or families."""
    atoms: list[Atom] = []
    for atom in axis:
        if atom.product is not None:
            atom.product = resolve(atom.product)
            atoms += atom.product
        else:
            _explode(atom)
            atoms.append(atom)
    return tuple(atoms)


def parents_of(atom: Atom) -> Axis:
    """Parents of an atom, resolved; the order is that of nesting."""
    if not atom.parents:
        return ()
    parents: list[Atom] = []
    for parent in atom.parents:
        stack = [parent]
        while stack:
            top = stack.pop()
            if top.product is not None:
                stack += reversed(top.product)
            elif top not in parents:
                parents.append(top)
    atom.parents = tuple(parents)
    return atom.parents


def _explode(atom: Atom) -> None:
    """Make an atom whose parent is a concatenation a family."""
    if atom.fixed or atom.product is not None or atom.is_family:
        return
    for parent in parents_of(atom):
        if parent.is_concat:
            others = [p for p in atom.parents if p is not parent]
            for other in others:
                _explode(other)
            members = [_member(atom, parent, others, k) for k in range(len(parent.parts))]
            atom.over, atom.parts, atom.members = parent, parent.parts, tuple(members)
            return


def _member(atom: Atom, parent: Atom, others: Sequence[Atom], k: int) -> Axis:
    """What an atom is within one part of a parent; its other parents may themselves have a member there."""
    if atom.is_concat:
        return concat([_within_part(part, parent, k) for part in atom.parts])
    return (Atom(atom.size, (*_within_part(others, parent, k), *parent.parts[k]), atom.label),)


def _within_part(axis: Iterable[Atom], parent: Atom, k: int) -> Axis:
    atoms: list[Atom] = []
    for atom in resolve(axis):
        atoms += atom.members[k] if atom.is_family and atom.over is parent else (atom,)
    return tuple(atoms)


def deep(axis: Iterable[Atom]) -> Iterable[Atom]:
    """All atoms of an axis, those of parts and members included."""
    for atom in resolve(axis):
        yield atom
        for part in (atom.members if atom.is_family else atom.parts) or ():
            yield from deep(part)


def leaves(axis: Iterable[Atom]) -> list[Atom]:
    """All free atoms that an axis depends on, in order, each once."""
    return list(dict.fromkeys(atom for atom in deep(axis) if atom.free))


def fix(axis: Iterable[Atom]) -> None:
    """Let nothing of an axis move."""
    for atom in resolve(axis):
        if atom.free:
            atom.fixed, atom.parents = True, ()
        for part in (atom.members if atom.is_family else atom.parts) or ():
            fix(part)


def ancestors(atom: Atom) -> set[Atom]:
    """All atoms that an atom acts within, at any depth."""
    seen: set[Atom] = set()
    stack = list(parents_of(atom))
    while stack:
        top = stack.pop()
        if top not in seen:
            seen.add(top)
            stack += parents_of(top)
    return seen


def flat_parts(axis: Axis) -> list[Axis]:
    """Parts of an axis that is a concatenation, or of its parts where these are; any other axis is one part."""
    atoms = resolve(axis)
    if len(atoms) == 1 and atoms[0].is_concat:
        return [part for whole in atoms[0].parts for part in flat_parts(whole)]
    return [atoms]


def boundaries(atom: Atom) -> list[int]:
    """Where the flat parts of a concatenation meet."""
    return list(accumulate(map(size_of, flat_parts((atom,)))))[:-1]


def family(members: Sequence[Axis], parts: Sequence[Axis], over: Atom, parents: Sequence[Atom]) -> Atom:
    """An atom with a given axis for each part of a parent."""
    made = Atom(size_of(members[0]), parents)
    made.members, made.parts, made.over = tuple(members), tuple(parts), over
    return made


def concat(axes: Sequence[Axis]) -> Axis:
    """Consecutive axes as one."""
    parts = [resolve(axis) for axis in axes]
    if len(parts) == 1:
        return parts[0]
    # fixed parts are one atom each; where all are fixed, so is the whole
    still = [len(part) > 1 and all(atom.fixed for atom in part) for part in parts]
    parts = [new_axis(size_of(part), fixed=True) if is_still else part for part, is_still in zip(parts, still)]
    size = sum(map(size_of, parts))
    if all(not part or all(atom.fixed for atom in part) for part in parts):
        return new_axis(size, fixed=True)
    # the whole acts within what all of its parts act within
    shared = None
    for part in parts:
        outside = [p for atom in part for p in parents_of(atom) if p not in part]
        shared = list(dict.fromkeys(outside)) if shared is None else [p for p in shared if p in outside]
    atom = Atom(size, tuple(shared))
    atom.parts = tuple(parts)
    return (atom,)
