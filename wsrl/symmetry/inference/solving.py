"""Equations between axes: what it takes that they move alike, come apart into factors or parts, or depend on nothing.

Every operation makes the group of allowed permutations smaller or leaves it.
"""

from collections.abc import Sequence
from itertools import pairwise

from wsrl.symmetry.inference.terms import (
    Atom,
    Axis,
    ancestors,
    boundaries,
    deep,
    family,
    fix,
    flat_parts,
    new_axis,
    parents_of,
    resolve,
    size_of,
)


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
    if b.free and size_of((a, *left)) == b.size and not overlaps(b, (a, *left)):
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


def overlaps(atom: Atom, axis: Axis) -> bool:
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
        for still, whole in ((a, b), (b, a)):
            if still.fixed and whole.is_concat and not any(resolve(part) for part in whole.parts):
                still.fixed, still.product = False, (whole,)  # elements that are told apart stay so
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
    if not done:
        fix(atoms)
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
