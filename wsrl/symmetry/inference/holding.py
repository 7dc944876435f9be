"""Families over single elements, such as the networks of a stack taken one by one, as what acts within a fixed axis."""

from collections.abc import Sequence

from wsrl.symmetry.inference.terms import Atom, Axis, deep, leaves, new_axis, parents_of, resolve


def hold_families(axes: Sequence[Axis]) -> None:
    """Make families with the same members one atom, and what they are families over the fixed axis that it acts within.

    A family is left as it is where a member moves on its own elsewhere too, or where another family that moves depends
    on the same parent.

    Args:
        axes: Axes of all weights.
    """
    atoms = list(dict.fromkeys(atom for axis in axes for atom in deep(axis)))
    moving = [atom for atom in atoms if atom.is_family and leaves((atom,))]
    # families that move, by their members; those whose members move nowhere else
    groups: dict[tuple[Axis, ...], list[Atom]] = {}
    for atom in moving:
        if _has_single_elements(atom):
            groups.setdefault(tuple(resolve(member) for member in atom.members), []).append(atom)
    groups = {members: alike for members, alike in groups.items() if not _moves_elsewhere(members, alike, axes)}
    # leave out groups that share a parent with a family outside of all groups, until there are none
    while True:
        candidates = [atom for alike in groups.values() for atom in alike]
        others = {_over(atom) for atom in moving if atom not in candidates}
        kept = {members: alike for members, alike in groups.items() if not others & {_over(atom) for atom in alike}}
        if len(kept) == len(groups):
            break
        groups = kept
    for members, alike in groups.items():
        _hold(len(members), alike)


def _over(atom: Atom) -> Atom:
    """The parent of a family that is a concatenation."""
    return resolve((atom.over,))[0]


def _has_single_elements(atom: Atom) -> bool:
    """Whether a family has another free member for each element of a parent without parts of its own."""
    members = [resolve(member) for member in atom.members]
    single = all(len(member) == 1 and member[0].free and not parents_of(member[0]) for member in members)
    return single and len(set(members)) == len(members) and not any(resolve(part) for part in atom.parts)


def _moves_elsewhere(members: Sequence[Axis], alike: Sequence[Atom], axes: Sequence[Axis]) -> bool:
    """Whether a member is found outside of the families that share all members."""
    own = {atom for member in members for atom in member}
    outside = [atom for axis in axes for top in resolve(axis) if top not in alike for atom in deep((top,))]
    return any(atom in own for atom in outside)


def _hold(num: int, alike: Sequence[Atom]) -> None:
    """Replace families by one atom within a fixed axis of so many elements."""
    wholes = list(dict.fromkeys(_over(atom) for atom in alike))
    known = [whole for whole in wholes if not whole.is_concat]
    (parent,) = known[:1] or new_axis(num, fixed=True)
    held = Atom(alike[0].size, (parent,), alike[0].label)
    for atom in alike:
        atom.parts = atom.members = atom.over = None
        atom.product, atom.parents = (held,), ()
    for whole in wholes:
        if whole is not parent:
            whole.parts, whole.product, whole.parents = None, (parent,), ()
