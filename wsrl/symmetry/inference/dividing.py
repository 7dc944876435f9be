"""One axis as several: cut into consecutive parts, or divided into the factors of a product."""

from collections.abc import Sequence
from itertools import pairwise

from wsrl.symmetry.inference.terms import Atom, Axis, family, fix, flat_parts, new_axis, parents_of, resolve, size_of


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
    if not atom.is_concat:  # one that is free or fixed becomes a concatenation of such
        edges = [0, *points, atom.size]
        widths = [stop - start for start, stop in pairwise(edges)]
        atom.parts = tuple(new_axis(width, parents_of(atom), fixed=atom.fixed) for width in widths)
        atom.fixed = False
        return True
    start, done = 0, True
    for part in atom.parts:  # a concatenation is cut inside its parts
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
        # a family of products is a product of two families, the inner one within the outer one
        parents, over, parts = parents_of(atom), atom.over, atom.parts
        head, tail = (family([half[k] for half in halves], parts, over, parents) for k in (0, 1))
        tail.parents = (*tail.parents, head)
        atom.parts = atom.members = atom.over = None
        atom.product, atom.parents = (head, tail), ()
    else:
        parents = parents_of(atom)
        head = new_axis(outer, parents, labels[0])
        atom.product, atom.parents = (*head, *new_axis(inner, (*parents, *head), labels[1])), ()
    return atom.product


def _divide_axis(axis: Axis, outer: int) -> tuple[Axis, Axis] | None:
    """An axis as outer and inner axis."""
    head: list[Atom] = []
    rest = list(resolve(axis))
    while size_of(head) < outer:  # whole atoms while they fit, then the outer half of the next one
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
