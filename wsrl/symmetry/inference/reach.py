"""Which elements of weights a traced run reached: what it cut off and never read does not move.

A table of 16 positions of which the example reads 5 leaves 11 rows that any permutation may move, for this example. A
longer input reads them, so they are fixed, as whole tensors are that nothing reads; so are the 5, as a shorter input
reads fewer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from wsrl.symmetry.inference.known_axes import Table
from wsrl.symmetry.inference.solving import collapse, unify
from wsrl.symmetry.inference.terms import Atom, Axis, deep, fix, leaves, parents_of, resolve, size_of

CROPS = frozenset(
    {"slice", "select", "narrow", "unbind", "index", "index_select"}
    | {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk"}
)
"""Operations that read only those elements of their operand that they give out; all others read all of theirs."""


@dataclass(frozen=True)
class Step:
    """One operation of a trace.

    Attributes:
        name: Its name.
        inputs: The tensors that it took.
        outputs: The tensors that it gave.
        writes: Whether it wrote into some of its inputs.
    """

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    writes: bool = False


def fix_unreached(table: Table, steps: Sequence[Step], outputs: Iterable[Tensor]) -> None:
    """Fix axes of weights of which a run cut off some elements and read these nowhere.

    What depends on such elements, as the columns of an unread row do, moves like that of the read ones where these
    move alike, and is fixed where they do not.

    Args:
        table: The axes of all tensors of the trace.
        steps: Its operations in order.
        outputs: What the run gave.
    """
    reached = _reached(table, steps, outputs)
    used = {name: axes for name, axes in table.weights.items() if name in table.used}
    dead: set[Atom] = set()
    for name, axes in used.items():
        alive = reached.get(table.key_of_weight(name), set())
        dead |= {atom for axis in axes for atom in leaves(axis) if atom not in alive}
    inside = [atom for axes in used.values() for axis in axes for atom in deep(axis)]
    cut = [atom for atom in inside if any(map(partial(_is_dead, dead=dead), atom.members or atom.parts or ()))]
    for axes in used.values():
        for whole in reversed([atom for axis in axes for atom in deep(axis) if atom.is_family]):  # inner ones first
            _follow_siblings(whole, dead)
    fix([atom for atom in dead if atom.free])
    fix([atom.over if atom.over is not None else atom for atom in cut if atom.is_concat or atom.is_family])


def _reached(table: Table, steps: Sequence[Step], outputs: Iterable[Tensor]) -> dict[int, set[Atom]]:
    """For each tensor that is read, the free atoms of those of its elements that are, from the last step to the first.

    The result of an operation that is no crop counts as read even if nothing takes it: only what a crop leaves out, and
    crops that nothing takes, are unread.
    """
    reached: dict[int, set[Atom]] = {}
    for tensor in outputs:
        _add(reached, table, tensor, _atoms(table, tensor))
    for step in reversed(steps):
        taken = [reached[key] for key in map(table.key, step.outputs) if key in reached]
        wanted = set().union(*taken)
        if step.name in CROPS and not step.writes:
            if not taken:
                continue
            produced = None
        else:  # all that is summed over or written is read, and of what is given out what is read later
            produced = {atom for tensor in step.outputs for atom in _atoms(table, tensor)} if taken else set()
            produced = set() if step.writes else produced
        for tensor in step.inputs:
            atoms = _atoms(table, tensor)
            _add(reached, table, tensor, atoms & wanted if produced is None else atoms & wanted | atoms - produced)
    return reached


def _atoms(table: Table, tensor: Tensor) -> set[Atom]:
    return {atom for axis in table.peek(tensor) for atom in leaves(axis)}


def _add(reached: dict[int, set[Atom]], table: Table, tensor: Tensor, atoms: set[Atom]) -> None:
    key = table.key(tensor)
    if key is not None:
        reached.setdefault(key, set()).update(atoms)


def _is_dead(axis: Axis, dead: set[Atom]) -> bool:
    """Whether an axis may move and nothing of it is read."""
    return bool(leaves(axis)) and dead.issuperset(leaves(axis))


def _follow_siblings(whole: Atom, dead: set[Atom]) -> None:
    """Let the unread members of a family move like its read ones, where there is only one way to."""
    if not whole.is_family:
        return
    members = [resolve(member) for member in whole.members]
    unread = [_is_dead(member, dead) for member in members]
    read = list(dict.fromkeys(member for member, is_unread in zip(members, unread) if not is_unread))
    within = {atom for part in whole.parts for atom in deep(part)}
    if len(read) != 1 or any(within.intersection(parents_of(atom)) for atom in deep(read[0])):
        return
    for member, is_unread in zip(members, unread):
        if is_unread and size_of(member) == size_of(read[0]):
            dead -= set(leaves(member))
            unify(member, read[0])
    if len({resolve(member) for member in whole.members}) == 1:
        collapse(whole)
