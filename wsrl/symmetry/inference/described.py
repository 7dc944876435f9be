"""Parts of a network whose symmetry is described by hand, in the middle of a traced one."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsrl.errors import UserError
from wsrl.symmetry.inference.reach import Step
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, concat, fix, new_axis, resolve, size_of
from wsrl.symmetry.inference.trace import Tracer
from wsrl.symmetry.spec.axes import Axis as SpecAxis
from wsrl.symmetry.spec.axes import factors_of, parts_of


@dataclass(frozen=True)
class ModuleAxes:
    """How the tensors of a submodule move.

    Attributes:
        tensors: For each of its parameters and buffers that moves, by its name inside the submodule, one axis for each
            dimension: None (fixed), a name, a ``Product`` or a ``Concat``. The others are fixed.
        inputs: The same for each tensor that it takes, in order.
        outputs: The same for each tensor that it gives.
    """

    tensors: Mapping[str, Sequence[SpecAxis]] = field(default_factory=dict)
    inputs: Sequence[Sequence[SpecAxis]] = ()
    outputs: Sequence[Sequence[SpecAxis]] = ()


class _Names:
    """Axes behind the names of one part; one name is one axis."""

    def __init__(self, path: str):
        self.path, self.known = path, {}

    def axis(self, text: SpecAxis, size: int) -> Axis:
        """The terms of an axis of known length."""
        parts = parts_of(text)
        lengths = [self._size(part) for part in parts]
        if lengths.count(None) == 1:
            lengths[lengths.index(None)] = size - sum(length or 0 for length in lengths)
        elif None in lengths:
            lengths = [size // len(parts)] * len(parts)
        return self._checked(concat([self._part(part, n) for part, n in zip(parts, lengths)]), text, size)

    def _part(self, part, size: int) -> Axis:
        factors = factors_of(part)
        if factors == (None,) or (len(factors) == 1 and isinstance(factors[0], int)):
            return new_axis(size, fixed=True)
        known = 1
        for factor in factors:
            known *= self._size(factor) or 1
        axis: Axis = ()
        for factor in factors:
            if isinstance(factor, int):
                axis += new_axis(factor, fixed=True)
            else:
                axis += resolve(self.known.setdefault(factor, new_axis(size // known)))
        return self._checked(axis, part, size)

    def _size(self, part) -> int | None:
        """Length of a part; None where it has a name that is not known yet."""
        factors = factors_of(part)
        if not all(isinstance(factor, int) or factor in self.known for factor in factors):
            return None
        return prod(factor if isinstance(factor, int) else size_of(self.known[factor]) for factor in factors)

    def _checked(self, axis: Axis, text, size: int) -> Axis:
        if size_of(axis) != size:
            raise UserError(
                f"described[{self.path!r}] says {text} of an axis of {size} elements",
                allowed=f"names of axes of one length; so far { ({k: size_of(v) for k, v in self.known.items()}) }",
                do="mend the description",
            )
        return axis


def follow_by_hand(module: nn.Module, path: str, part: ModuleAxes, tracer: Tracer, stack: ExitStack) -> None:
    """Replace the tracing of a submodule by its description until the stack is closed."""
    parts = dict(module.named_modules())
    if path not in parts:
        raise UserError(f"described names {path!r}", allowed=", ".join(parts), do="name a submodule by its path")
    target = parts[path]
    own = {**dict(target.named_parameters()), **dict(target.named_buffers())}
    unknown = [name for name in part.tensors if name not in own]
    if unknown:
        raise UserError(f"described[{path!r}] names the tensor {unknown[0]!r}", allowed=", ".join(own) or "none")
    run, names = target.forward, _Names(path)

    def forward(*args, **kwargs):
        # its inputs and its own tensors move as described
        _tie_all(tracer, names, path, "inputs", tree_leaves((args, kwargs)), part.inputs)
        for name, tensor in own.items():
            axes = part.tensors.get(name, (None,) * tensor.ndim)
            _tie_all(tracer, names, path, name, [tensor], [axes])
        # what it does is not followed; its outputs move as described
        was_paused, tracer.paused = tracer.paused, True
        try:
            result = run(*args, **kwargs)
        finally:
            tracer.paused = was_paused
        for tensor, axes in _pairs(path, "outputs", tree_leaves(result), part.outputs):
            tracer.table.record(tensor, [names.axis(axis, size) for axis, size in zip(axes, tensor.shape)])
        taken = [leaf for leaf in tree_leaves((args, kwargs, own)) if isinstance(leaf, Tensor)]
        tracer.steps.append(Step("described", taken, [], writes=True))
        return result

    target.forward = forward
    stack.callback(delattr, target, "forward")


def _tie_all(tracer: Tracer, names: _Names, path: str, what: str, leaves: list, descriptions: Sequence) -> None:
    for tensor, axes in _pairs(path, what, leaves, descriptions):
        described = [names.axis(axis, size) for axis, size in zip(axes, tensor.shape)]
        for own, axis in zip(tracer.table.get(tensor), described):
            if own and all(atom.fixed for atom in axis):
                fix(own)
            elif own:
                unify(own, axis)


def _pairs(path: str, what: str, leaves: list, descriptions: Sequence) -> list[tuple[Tensor, Sequence[SpecAxis]]]:
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) != len(descriptions) or any(t.ndim != len(d) for t, d in zip(tensors, descriptions)):
        raise UserError(
            f"described[{path!r}] describes {len(descriptions)} {what} with {[len(d) for d in descriptions]} axes",
            allowed=f"{len(tensors)} with {[tensor.ndim for tensor in tensors]} axes",
            do="describe every axis of every tensor, with None where it is fixed",
        )
    return list(zip(tensors, descriptions))
