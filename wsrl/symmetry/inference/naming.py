"""From solved terms to a spec: what still moves gets a name, and axes are written in these names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from wsrl.symmetry.inference.dividing import cut_at
from wsrl.symmetry.inference.holding import hold_families
from wsrl.symmetry.inference.reshape import settle
from wsrl.symmetry.inference.solving import collapse, cut
from wsrl.symmetry.inference.terms import Atom, Axis, deep, fix, leaves, new_axis, parents_of, resolve, size_of
from wsrl.symmetry.spec.axes import Axis as SpecAxis
from wsrl.symmetry.spec.axes import Concat, Product

MAX_COPIES = 16
"""Longest fixed axis for each of whose elements a permutation of its own is written down."""
MAX_ROUNDS = 10_000
"""Each round fixes or ties something, so a network that needs more than this is a mistake of ours."""


class _StartOverError(Exception):
    """Something had to be fixed that no spec can express; all that was written so far is void."""


def express(weights: Mapping[str, Sequence[Axis]]) -> dict[str, list[list[list[Atom]]]]:
    """Parts of every axis of every weight as lists of free and fixed atoms.

    What a spec cannot express is fixed, or moves alike for all elements of its parent.
    """
    hold_families([axis for axes in weights.values() for axis in axes])
    for _ in range(MAX_ROUNDS):
        _simplify(weights)
        try:
            return {name: [spell(axis, axes) for axis in settle(axes)] for name, axes in weights.items()}
        except _StartOverError:
            continue
    raise AssertionError("the spelling of axes does not end")


def _simplify(weights: Mapping[str, Sequence[Axis]]) -> None:
    """Settle all axes, and replace dependence on fixed elements of the same axis by copies."""
    changed = True
    while changed:
        changed = False
        for axes in weights.values():
            settled = settle(axes)
            for atom in [atom for axis in settled for atom in deep(axis)]:
                for parent in parents_of(atom):
                    if parent.fixed and parent.product is None and not _is_held(atom, parent, weights):
                        _copy(atom, parent, settled)
                        changed = True


def _is_held(atom: Atom, parent: Atom, weights: Mapping[str, Sequence[Axis]]) -> bool:
    """Whether an atom may act within a fixed one by name: on another axis, and elsewhere at most beside it on one."""
    carriers = [axes for axes in map(settle, weights.values()) if any(atom in deep(axis) for axis in axes)]
    apart = [any(parent in axis and atom not in deep(axis) for axis in axes) for axes in carriers]
    beside = [any(parent in axis and atom in axis for axis in axes) for axes in carriers]
    return atom.free and any(apart) and all(a or b for a, b in zip(apart, beside))


def _copy(atom: Atom, parent: Atom, axes: Sequence[Axis]) -> None:
    """One permutation for each element of a fixed parent on the same axis, or one for all where that is too long."""
    together = any(parent in axis and atom in deep(axis) for axis in axes)
    if atom.fixed or parent.size > MAX_COPIES or not together or not cut_at((parent,), range(1, parent.size)):
        cut(atom, parent)


def spell(axis: Axis, axes: Sequence[Axis]) -> list[list[Atom]]:
    """Consecutive parts of an axis, each as factors that are free or fixed."""
    atoms = list(resolve(axis))
    if not leaves(atoms):
        return [atoms if all(atom.fixed for atom in atoms) else list(new_axis(size_of(atoms), fixed=True))]
    for index, atom in enumerate(atoms):
        if (atom.is_family or atom.is_concat) and _is_still(atom, atoms):
            still = new_axis(atom.size, fixed=True)
            return spell((*atoms[:index], *still, *atoms[index + 1 :]), axes)
        if atom.is_family:  # its parent is on another axis, or behind it
            collapse(atom)
            raise _StartOverError
        if atom.is_concat:
            return _spell_concat(atoms, index, axes)
    return [atoms]


def _is_still(whole: Atom, atoms: Sequence[Atom]) -> bool:
    """Whether no part or member of an atom moves, nor anything that depends on which part of it is meant."""
    return not leaves((whole,)) and not any(whole in parents_of(atom) and leaves((atom,)) for atom in atoms)


def _spell_concat(atoms: list[Atom], index: int, axes: Sequence[Axis]) -> list[list[Atom]]:
    """Parts of an axis whose atom at a place is a concatenation, repeated for each element of what is before it."""
    head, whole, tail = atoms[:index], atoms[index], atoms[index + 1 :]
    # what is before the concatenation must be fixed, and short enough to be written out
    if not all(atom.fixed for atom in head):
        fix(head)
        raise _StartOverError
    if size_of(head) > MAX_COPIES:
        fix((*head, whole))
        raise _StartOverError
    # each part with what is behind it; of families over the concatenation the member for that part
    parts = []
    for k, part in enumerate(whole.parts):
        rest = []
        for atom in tail:
            if atom.is_family and resolve((atom.over,)) == (whole,):
                if len(atom.members) != len(whole.parts):
                    collapse(atom)
                    raise _StartOverError
                rest += atom.members[k]
            else:
                rest.append(atom)
        parts += spell((*part, *rest), axes)
    return parts * size_of(head)


def written(parts: list[list[Atom]], names: Mapping[Atom, str]) -> SpecAxis:
    """An axis of a spec, without parts and factors that could be one."""
    merged: list = []
    for part in parts:
        # the factors of a part: names, and sizes of fixed ones, of which neighbours are one
        factors: list = []
        for atom in part:
            if atom in names:
                factors.append(names[atom])
            elif factors and isinstance(factors[-1], int):
                factors[-1] *= atom.size
            else:
                factors.append(atom.size)
        # neighbouring fixed parts are one too
        text = (factors[0] if len(factors) == 1 else Product(tuple(factors))) if factors else 1
        if isinstance(text, int) and merged and isinstance(merged[-1], int):
            merged[-1] += text
        else:
            merged.append(text)
    if len(merged) == 1:
        return None if isinstance(merged[0], int) else merged[0]
    return Concat(tuple(merged))


def name_atoms(spelled: Mapping[str, list[list[list[Atom]]]], order: Sequence[str]) -> dict[Atom, str]:
    """Names of all free atoms, and of fixed ones that these act within.

    A name is the module that carries the atom first, and a word where there are several.

    Args:
        spelled: Parts of the axes of every weight.
        order: Weights in the order of their first use.
    """
    names: dict[Atom, str] = {}
    taken: set[str] = set()
    with_children = {p for axes in spelled.values() for axis in axes for part in axis for a in part for p in a.parents}
    for weight in order:
        for dim, axis in enumerate(spelled[weight]):
            for atom in [atom for part in axis for atom in part if atom.free or atom in with_children]:
                if atom not in names:
                    word = _word(atom, weight, atom in with_children, taken)
                    names[atom] = next(c for c in _candidates(weight, dim, word) if c not in taken)
                    taken.add(names[atom])
    return names


def _word(atom: Atom, weight: str, has_children: bool, taken: set[str]) -> str:
    if atom.fixed:
        return "copies"
    if has_children:
        return atom.label if atom.label in ("heads", "groups") else ""
    if not atom.parents:
        return ""
    if any(text in weight for text in ("in_proj", "qkv", "c_attn")):
        return "qk" if f"{stem_of(weight)}.qk" not in taken else "v"
    return "channels"


def module_path(weight: str) -> tuple[str, str]:
    """The module of a weight, and the rest of its name."""
    base, _, leaf = weight.rpartition(".")
    base = base.split(".parametrizations.")[0] if ".parametrizations." in base else base
    return base, leaf


def stem_of(weight: str) -> str:
    """What the permutations of a weight are called after: its module, and the layer and direction of recurrent ones."""
    base, leaf = module_path(weight)
    layer = re.search(r"_(l\d+(_reverse)?)$", leaf)
    return ".".join(text for text in (base, layer.group(1) if layer else "") if text) or leaf


def _candidates(weight: str, dim: int, word: str) -> Iterator[str]:
    stem, leaf = stem_of(weight), module_path(weight)[1]
    yield f"{stem}.{word}" if word else stem
    if not word and stem != leaf:
        yield f"{stem}.{leaf}"
    tail = f"{stem}.{leaf}.{word or dim}" if stem != leaf else f"{stem}.{word or dim}"
    yield tail
    yield from (f"{tail}.{number}" for number in count(1))
