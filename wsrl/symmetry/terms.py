"""Unknown permutations as terms, and the equations between them: type inference for the axes of tensors.

An axis is a row-major product of atoms, outermost first; an axis of one element is the empty product. An atom stands
for elements that one permutation moves. It is free at first, and may later turn out to be

- ``fixed``: nothing may move it;
- a product of other atoms, or another atom: what two views of one axis have in common;
- a concatenation of other axes: parts that move on their own.

An atom with parents is one independent permutation for each element of its parents. Where a parent turns out to be a
concatenation, such an atom is a *family*: one member for each part of the parent.

Every operation here makes the group of allowed permutations smaller or leaves it: what was found sound stays sound.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
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


def size_of(axis: Iterable[Atom]) -> int:
    """Number of elements of an axis."""
    return prod(atom.size for atom in axis)


def resolve(axis: Iterable[Atom]) -> Axis:
    """The axis in terms of atoms that are free, fixed, concatenations or families."""
    found: list[Atom] = []
    for atom in axis:
        if atom.product is not None:
            atom.product = resolve(atom.product)
            found += atom.product
        else:
            _explode(atom)
            found.append(atom)
    return tuple(found)


def parents_of(atom: Atom) -> Axis:
    """Parents of an atom, resolved; the order is that of nesting."""
    if not atom.parents:
        return ()
    found: list[Atom] = []
    for parent in atom.parents:
        stack = [parent]
        while stack:
            top = stack.pop()
            if top.product is not None:
                stack += reversed(top.product)
            elif top not in found:
                found.append(top)
    atom.parents = tuple(found)
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
    found: list[Atom] = []
    for atom in resolve(axis):
        found += atom.members[k] if atom.is_family and atom.over is parent else (atom,)
    return tuple(found)


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


def cut(atom: Atom, parent: Atom) -> None:
    """End the dependence of a resolved atom on a resolved parent: one permutation for all elements of the parent."""
    if atom.is_family and atom.over is not None and parent in resolve((atom.over,)):
        collapse(atom)
        return
    atom.parents = tuple(p for p in parents_of(atom) if p is not parent)
    for part in (atom.members if atom.is_family else atom.parts) or ():
        for inner in resolve(part):
            if parent in parents_of(inner):
                cut(inner, parent)


def collapse(family: Atom) -> None:
    """Make all members of a family one, which moves alike for every part of the parent."""
    parts, members, over = family.parts, family.members, family.over
    others = [p for p in parents_of(family) if p not in resolve((over,))]
    merged = Atom(family.size, others, family.label)
    family.parts = family.members = family.over = None
    family.product, family.parents = (merged,), ()
    for part, member in zip(parts, members):
        for inner in resolve(member):
            for parent in resolve(part):
                if parent in parents_of(inner):
                    cut(inner, parent)
        unify((merged,), member)


def ancestors(atom: Atom) -> set[Atom]:
    """All atoms that an atom acts within, at any depth."""
    found: set[Atom] = set()
    stack = list(parents_of(atom))
    while stack:
        top = stack.pop()
        if top not in found:
            found.add(top)
            stack += parents_of(top)
    return found


def unify(first: Axis, second: Axis) -> None:
    """Let two axes of one length move alike."""
    left, right = list(resolve(first)), list(resolve(second))
    while left and right:
        a, b = left.pop(0), right.pop(0)
        if a is b:
            continue
        if a.size == b.size:
            _unify_atoms(a, b)
        elif not _align(a, b, left, right):
            fix((a, b, *left, *right))
            return
        left, right = list(resolve(left)), list(resolve(right))
    assert not left and not right, "axes of different lengths"


def _align(a: Atom, b: Atom, left: list[Atom], right: list[Atom]) -> bool:
    """Put two atoms of different sizes back on the lists in pieces that begin alike; whether that was possible."""
    if a.size > b.size:
        return _align(b, a, right, left)
    if b.free and size_of((a, *left)) == b.size and not left_overlaps(b, (a, *left)):
        left.insert(0, a)
        bind(b, tuple(left))
        left.clear()
        return not right
    halves = divide(b, a.size)
    if halves is None:
        return False
    left.insert(0, a)
    right[:0] = resolve(halves)
    return True


def left_overlaps(atom: Atom, axis: Axis) -> bool:
    """Whether an atom is among those of an axis, or among what they depend on."""
    return any(atom is other or atom in ancestors(other) for other in deep(axis))


def bind(atom: Atom, axis: Axis) -> None:
    """Let a free atom be an axis of its size."""
    assert atom.free and size_of(axis) == atom.size
    allowed = {*parents_of(atom), *axis}
    for other in deep(axis):
        for parent in parents_of(other):
            if atom is parent or atom in ancestors(parent):
                cut(other, parent)
    for other in axis:
        for parent in parents_of(other):
            if parent not in allowed:
                cut(other, parent)
    axis = resolve(axis)
    assert atom not in axis
    if atom.label:
        for other in axis[:1]:
            other.label = other.label or (atom.label if len(axis) == 1 else "")
    atom.product, atom.parents = axis, ()


def _unify_atoms(a: Atom, b: Atom) -> None:
    """Let two different resolved atoms of one size move alike."""
    if a.free and a not in deep((b,)):
        bind(a, (b,))
    elif b.free and b not in deep((a,)):
        bind(b, (a,))
    elif a.fixed or b.fixed:
        fix((a, b))
        if a.fixed and b.fixed:
            b.product = (a,)
    elif a.is_family and b.is_family:
        _unify_families(a, b)
    elif a.is_family or b.is_family:
        collapse(a if a.is_family else b)
        unify((a,), (b,))
    else:
        _unify_concats(a, b)


def _unify_families(a: Atom, b: Atom) -> None:
    same = resolve((a.over,)) == resolve((b.over,)) and [*map(size_of, a.parts)] == [*map(size_of, b.parts)]
    if not same:
        collapse(a)
        collapse(b)
        unify((a,), (b,))
        return
    for first, second in zip(a.members, b.members):
        unify(first, second)
    shared = [p for p in parents_of(a) if p in parents_of(b)]
    a.parents, b.parents, b.product = tuple(shared), (), (a,)
    b.parts = b.members = b.over = None


def flat_parts(axis: Axis) -> list[Axis]:
    """Parts of an axis that is a concatenation, or of its parts where these are; any other axis is one part."""
    atoms = resolve(axis)
    if len(atoms) == 1 and atoms[0].is_concat:
        return [part for whole in atoms[0].parts for part in flat_parts(whole)]
    return [atoms]


def _unify_concats(a: Atom, b: Atom) -> None:
    points = sorted({*boundaries(a), *boundaries(b)})
    for atom in (a, b):
        cut_at((atom,), points)
    if not (a.is_concat and b.is_concat) or boundaries(a) != boundaries(b):
        fix((a, b))
        return
    for first, second in zip(flat_parts((a,)), flat_parts((b,))):
        unify(first, second)
    if a is not b and a.is_concat and b.is_concat:
        shared = [p for p in parents_of(a) if p in parents_of(b)]
        a.parents = tuple(shared)
        b.parts, b.product, b.parents = None, (a,), ()


def boundaries(atom: Atom) -> list[int]:
    """Where the flat parts of a concatenation meet."""
    found, place = [], 0
    for part in flat_parts((atom,)):
        place += size_of(part)
        found.append(place)
    return found[:-1]


def cut_at(axis: Axis, points: Sequence[int]) -> bool:
    """Cut an axis into consecutive parts.

    Args:
        axis: The axis.
        points: Where, in increasing order, strictly inside it.

    Returns:
        Whether the axis (or its outermost atom) is now a concatenation with all these boundaries; if not, the axis has
        been fixed.
    """
    atoms = resolve(axis)
    inner = size_of(atoms[1:])
    if not points:
        return True
    if any(point % inner for point in points) or atoms[0].is_family:
        fix(atoms)
        return False
    atom, points = atoms[0], [point // inner for point in points]
    if not atom.is_concat:
        edges = [0, *points, atom.size]
        widths = [stop - start for start, stop in pairwise(edges)]
        atom.parts = tuple(new_axis(width, parents_of(atom), fixed=atom.fixed) for width in widths)
        atom.fixed = False
        return True
    start, done = 0, True
    for part in atom.parts:
        stop = start + size_of(part)
        inside = [point - start for point in points if start < point < stop]
        done &= cut_at(part, inside)
        start = stop
    return done


def divide(atom: Atom, outer: int, labels: tuple[str, str] = ("", "")) -> Axis | None:
    """An atom as a product of two axes, the inner one with a permutation for each element of the outer one.

    Args:
        atom: A resolved atom.
        outer: Size of the outer axis, which must divide its size.
        labels: Words for the names of the two.

    Returns:
        The product; None where it cannot be one, and the atom is then as it was.
    """
    if atom.size % outer:
        return None
    inner = atom.size // outer
    if atom.fixed:
        atom.fixed, atom.product = False, (*new_axis(outer, fixed=True), *new_axis(inner, fixed=True))
    elif atom.is_concat:
        return _divide_concat(atom, inner)
    elif atom.is_family:
        halves = [_divide_axis(member, outer) for member in atom.members]
        if None in halves:
            return None
        parents, over, parts = parents_of(atom), atom.over, atom.parts
        pairs = [tuple(family([half[k] for half in halves], parts, over, parents) for k in (0, 1))]
        outer_axis, inner_axis = pairs[0]
        inner_axis.parents = (*inner_axis.parents, outer_axis)
        atom.parts = atom.members = atom.over = None
        atom.product, atom.parents = (outer_axis, inner_axis), ()
    else:
        parents = parents_of(atom)
        head = new_axis(outer, parents, labels[0])
        atom.product, atom.parents = (*head, *new_axis(inner, (*parents, *head), labels[1])), ()
    return atom.product


def family(members: Sequence[Axis], parts: Sequence[Axis], over: Atom, parents: Sequence[Atom]) -> Atom:
    """An atom with a given axis for each part of a parent."""
    made = Atom(size_of(members[0]), parents)
    made.members, made.parts, made.over = tuple(members), tuple(parts), over
    return made


def _divide_axis(axis: Axis, outer: int) -> tuple[Axis, Axis] | None:
    """An axis as outer and inner axis."""
    head: list[Atom] = []
    rest = list(resolve(axis))
    while size_of(head) < outer:
        atom = rest.pop(0)
        wanted = outer // size_of(head)
        if atom.size > wanted:
            halves = divide(atom, wanted) if outer % size_of(head) == 0 else None
            if halves is None:
                return None
            rest[:0] = resolve(halves)
        else:
            head.append(atom)
    return (tuple(head), tuple(rest)) if size_of(head) == outer else None


def _divide_concat(atom: Atom, inner: int) -> Axis | None:
    """A concatenation as a concatenation of outer axes times a family of inner ones."""
    parts = flat_parts((atom,))
    if any(size_of(part) % inner for part in parts):
        return None
    halves = [_divide_axis(part, size_of(part) // inner) for part in parts]
    if None in halves:
        return None
    parents = parents_of(atom)
    head = Atom(atom.size // inner, parents)
    head.parts = tuple(outer for outer, _ in halves)
    tail = family([inside for _, inside in halves], head.parts, head, (*parents, head))
    atom.parts, atom.product, atom.parents = None, (head, tail), ()
    return atom.product


def concat(axes: Sequence[Axis]) -> Axis:
    """Consecutive axes as one."""
    parts = [resolve(axis) for axis in axes]
    if len(parts) == 1:
        return parts[0]
    size = sum(map(size_of, parts))
    if all(not part or all(atom.fixed for atom in part) for part in parts):
        return new_axis(size, fixed=True)
    shared = None
    for part in parts:
        outside = {p for atom in part for p in parents_of(atom)} - set(part)
        shared = outside if shared is None else shared & outside
    atom = Atom(size, tuple(shared))
    atom.parts = tuple(parts)
    return (atom,)
