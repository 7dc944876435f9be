"""Proof of a spec on a network: the permutations leave its output as it is, and broken ties do not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.symmetry.inference.running import DoubleNetwork, drawing, unread_entries
from wsrl.symmetry.spec.axes import Axis, Concat, Product, factors_of, names_in, parts_of
from wsrl.symmetry.spec.permute import Weights
from wsrl.symmetry.spec.spec import PermutationSpec

TOLERANCE = 1e-10
"""Largest change of the output, relative to its largest entry, in float64."""
CHANGED = 1e-7
"""Smallest change that counts as one."""
STEP = 1e-6
"""How far weights are moved, relative to themselves, to see whether the output is rounded on the way."""
ROUNDED = 1e-9
"""Second difference of the output from which it is: a smooth one in float64 has about ``STEP ** 2``."""
MARGIN = 100
"""How many times its rounding the output of a network that rounds may change."""
COARSEST = 1e-4
"""Largest such change: a broken tie changes an output by more."""
OUTCOMES = ("ties_seen", "silent", "alone")
"""What breaking the ties of a permutation may show, as :class:`Verification` describes it."""


@dataclass(frozen=True)
class Verification:
    """What the check of a spec found.

    Attributes:
        largest_error: Largest change of the output under permutations of the spec, relative to its largest entry.
        trials: Number of random permutations.
        ties_seen: Permutations for which moving only one of the axes that they tie changes the output.
        silent: Those for which it changes nothing, such as units that nothing reads.
        alone: Those that act on one axis only, so that there is no tie to break.
        unread: For tensors of which the output for these inputs does not depend on all, how many entries it does not
            depend on, such as rows of a table beyond the length of the input. Nothing is proved of these.
        tolerance: Largest change that was allowed; more than ``TOLERANCE`` where the network computes in float32 inside
            in ways that cannot be changed, such as in NumPy.
    """

    largest_error: float
    trials: int
    ties_seen: tuple[str, ...]
    silent: tuple[str, ...]
    alone: tuple[str, ...]
    unread: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = TOLERANCE


def verify(
    spec: PermutationSpec,
    module: nn.Module | Callable,
    inputs: object,
    *,
    weights: Weights | None = None,
    generator: torch.Generator | None = None,
    trials: int = 3,
    controls: int = 200,
) -> Verification:
    """Check ``f(pi theta) = f(theta)`` in float64, and that it fails where a tie is broken.

    A copy of the network in evaluation mode is used, and all that it computes in fewer bits is computed in float64. Its
    weights are drawn at random first, so that zeros and ones of the initialisation hide nothing; so are running
    statistics and buffers of equal numbers. Inputs, other buffers, masks and whole numbers stay as they are. What the
    inputs do not reach is not proved, and told.

    Args:
        spec: The spec.
        module: A module, or a pure function ``function(weights, *inputs)`` of weights with a batch axis.
        inputs: One tensor, a tuple of arguments, or a dict of keyword arguments.
        weights: Weights ``shape`` or ``(1, *shape)`` of a function; a module has its own.
        generator: Randomness of weights and permutations; None for a fixed seed.
        trials: Number of random permutations.
        controls: Largest number of permutations whose ties are broken; those first used come first.

    Raises:
        UserError: The symmetry does not hold; names the permutation and the error.
    """
    generator = generator or torch.Generator().manual_seed(0)
    network = DoubleNetwork(spec, module, inputs, weights)
    draw = drawing(module, network.start, generator)
    start = draw()
    subject = {name: tensor for name, tensor in start.items() if name in spec.axes}
    before = network.outputs(start)

    def change(moved: Weights) -> float:
        return _difference(before, network.outputs({**start, **moved}))

    # random permutations of all that moves leave the output as it is, up to what it rounds inside
    errors, tolerance = [], TOLERANCE
    for _ in range(trials):
        permutation = spec.random_permutation(generator)
        errors.append(change(spec.apply(subject, permutation)))
        if TOLERANCE < errors[-1] <= COARSEST and tolerance == TOLERANCE:
            tolerance = _tolerance(network.outputs, start, before, generator)
        if not errors[-1] <= tolerance:
            alone = {name: change(spec.apply(subject, {name: table})) for name, table in permutation.items()}
            raise _refusal(spec, alone, errors[-1], tolerance)
    # what the output does not depend on for these inputs is not proved
    unread = unread_entries(network, start, draw)
    # the control: each permutation on one of its axes only changes the output
    limit = max(CHANGED, 10 * tolerance if tolerance > TOLERANCE else 0)
    outcomes = {n: _control(spec, n, subject, change, limit, unread) for n in spec.permutations[:controls]}
    controlled = {kind: tuple(n for n, own in outcomes.items() if own == kind) for kind in OUTCOMES}
    not_read = {name: int(entries.sum()) for name, entries in unread.items()}
    return Verification(max(errors, default=0.0), trials, **controlled, unread=not_read, tolerance=tolerance)


def _tolerance(run: Callable, start: Weights, before: list[Tensor], generator: torch.Generator) -> float:
    """What rounding inside the network makes of the output, seen by moving the weights twice by one small step."""
    steps = {n: t * torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in start.items() if _is_real(t)}
    once, twice = (run({**start, **{n: start[n] + k * STEP * step for n, step in steps.items()}}) for k in (1, 2))
    bent = [2 * b.double() - c.double() for b, c in zip(once, twice) if _is_real(b)]
    rounding = _difference([a for a in before if _is_real(a)], bent)
    return min(MARGIN * rounding, COARSEST) if ROUNDED < rounding < float("inf") else TOLERANCE


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _difference(first: list[Tensor], second: list[Tensor]) -> float:
    """Largest difference, relative to the largest entry; infinite where one is no number."""
    worst = 0.0
    for a, b in zip(first, second):
        if a.numel():
            scale = max(float(a.abs().max()), 1e-30) if a.is_floating_point() or a.is_complex() else 1.0
            change = a - b if a.is_complex() else a.double() - b.double()
            worst = max(worst, float(change.abs().nan_to_num(float("inf")).max()) / scale)
    return worst


def _refusal(spec: PermutationSpec, alone: Mapping[str, float], error: float, tolerance: float) -> UserError:
    """What to say of permutations that changed the output: which does, of the changes that each makes alone."""
    wrong = [name for name, change in alone.items() if not change <= tolerance]
    worst = max(wrong, key=alone.__getitem__, default=None)
    blamed = f"the permutation {worst!r}" if worst else "permutations together"
    carriers = [name for name, axes in spec.axes.items() if any(worst in names_in(axis) for axis in axes)]
    error = alone.get(worst, error)
    return UserError(
        f"{blamed} changes the output by {error:.1e} of its largest entry"
        + (f"; so do {', '.join(repr(name) for name in wrong if name != worst)}" if len(wrong) > 1 else ""),
        allowed=f"at most {tolerance:.0e}"
        + (", as the network computes in float32 inside" if tolerance > TOLERANCE else ""),
        do=f"mend its axes (it acts on {', '.join(carriers)})" if worst else "mend the spec",
    )


def _control(
    spec: PermutationSpec,
    name: str,
    subject: Weights,
    change: Callable,
    limit: float,
    unread: Mapping[str, Tensor],
) -> str:
    """Break the ties of one permutation, one after the other, until the output changes; one of ``OUTCOMES``."""
    # all occurrences of the permutation, each alone after the other
    occurrences = [
        (tensor, axis, part, factor)
        for tensor, axes in spec.axes.items()
        for axis, text in enumerate(axes)
        for part, whole in enumerate(parts_of(text))
        for factor, carried in enumerate(factors_of(whole))
        if carried == name
    ]
    table = torch.arange(spec.sizes[name]).roll(1).expand(spec.table_shape(name))
    for occurrence in occurrences:
        tensor = occurrence[0]
        broken = _only_at(spec, name, occurrence)
        if len(occurrences) == 1:  # no tie: nothing to see where the output reads none of what moves
            entries = torch.arange(subject[tensor].numel()).view(subject[tensor].shape)
            touched = broken.apply({tensor: entries}, {name: table})[tensor] != entries
            return "silent" if tensor in unread and bool(unread[tensor][touched].all()) else "alone"
        moved = broken.apply({tensor: subject[tensor]}, {name: table})
        if change(moved) > limit:
            return "ties_seen"
    return "silent"


def _only_at(spec: PermutationSpec, name: str, occurrence: tuple) -> PermutationSpec:
    """The spec of one tensor in which one permutation acts at one occurrence only, and no other but its parents."""
    tensor, *index = occurrence
    parents = spec.within.get(name, ())

    def part(text, dim: int, k: int):
        acts = [f in parents or (f == name and [dim, k, i] == index) for i, f in enumerate(factors_of(text))]
        factors = [f if a or not isinstance(f, str) else spec.lengths[f] for f, a in zip(factors_of(text), acts)]
        return Product(tuple(factors)) if isinstance(text, Product) else factors[0]

    def axis(text: Axis, dim: int) -> Axis:
        parts = tuple(part(p, dim, k) for k, p in enumerate(parts_of(text)))
        return Concat(parts) if isinstance(text, Concat) else parts[0]

    axes = {tensor: tuple(axis(text, dim) for dim, text in enumerate(spec.axes[tensor]))}
    shapes = {key: shape for key, shape in spec.shapes.items() if key == tensor}
    return PermutationSpec(axes, spec.sizes, {name: parents}, shapes, spec.held)
