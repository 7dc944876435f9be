"""Equations between axes: what it takes that they move alike, or that one depends no more on another.

Every operation makes the group of allowed permutations smaller or leaves it.
"""

from wsrl.symmetry.inference.dividing import cut_at, divide
from wsrl.symmetry.inference.terms import (
    Atom,
    Axis,
    ancestors,
    boundaries,
    deep,
    fix,
    flat_parts,
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
    # one atom that depends on the other parents alone stands in place of the family
    others = [p for p in parents_of(family) if p not in resolve((over,))]
    merged = Atom(family.size, others, family.label)
    family.parts = family.members = family.over = None
    family.product, family.parents = (merged,), ()
    # each member ends its dependence on its part of the parent, and moves as that atom does
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
    if b.free and size_of((a, *left)) == b.size and not overlaps(b, (a, *left)):  # the larger one is all that is left
        left.insert(0, a)
        bind(b, tuple(left))
        left.clear()
        return not right
    halves = divide(b, a.size)  # else the larger one begins with what the smaller one is
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
    # nothing of the axis may act within the atom itself, nor within what the atom does not act within
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
    # the word for its name goes on with it
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
    # both with the boundaries of both, then part by part
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
