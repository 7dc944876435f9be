"""Finding the symmetry of a network: trace it once, solve for what its axes may do, and write the spec."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import wsrl.symmetry.inference.rules_indices
import wsrl.symmetry.inference.rules_linear
import wsrl.symmetry.inference.rules_masks
import wsrl.symmetry.inference.rules_order
import wsrl.symmetry.inference.rules_pointwise
import wsrl.symmetry.inference.rules_shape  # noqa: F401  (registers rules)
from wsrl.symmetry.inference.described import ModuleAxes, follow_by_hand
from wsrl.symmetry.inference.known_axes import Table, WrittenConstantError
from wsrl.symmetry.inference.naming import express, name_atoms, written
from wsrl.symmetry.inference.network_tensors import (
    RUNNING,
    as_arguments,
    evaluation_copy,
    named_tensors,
    names_under,
    tensors_in,
)
from wsrl.symmetry.inference.reach import fix_unreached
from wsrl.symmetry.inference.terms import fix
from wsrl.symmetry.inference.trace import Tracer, plain_kernels
from wsrl.symmetry.spec.permute import Weights, parents_first
from wsrl.symmetry.spec.spec import PermutationSpec

MASK_TRIALS = 4
"""Random permutations that a mask is tried with, beside two that generate all."""


def infer_module(
    module: nn.Module,
    example_inputs: object,
    *,
    described: Mapping[str, ModuleAxes] | None = None,
    fixed: Iterable[str] = (),
    buffers: bool = True,
) -> PermutationSpec:
    """Find for every axis of every parameter and saved buffer the permutation that acts on it.

    The module runs once, as a copy in evaluation mode. Axes of its inputs and outputs are fixed, and so is every tensor
    that it never reads, and what the example does not reach of others: the rows of a table beyond its length.

    Args:
        module: Any module.
        example_inputs: One tensor, a tuple of arguments, or a dict of keyword arguments.
        described: Parts that are described by hand: for the path of a submodule how its tensors, inputs and outputs
            move. It then runs without being traced.
        fixed: Names of tensors, or beginnings of names up to a dot, that stay fixed.
        buffers: Whether buffers move as they need to. If not they are constants of the architecture and stay fixed,
            with all that is tied to them, but for running statistics, which move with their channels.

    Returns:
        The spec of the tensors that ``state_dict()`` holds, with tied ones under each of their names. Those that it
        does not hold, such as buffers that are not persistent, are constants: they stay fixed, with all that is tied
        to them.

    Raises:
        UserError: An operation without a rule, with the submodule it stands in and what to do.
    """
    module = evaluation_copy(module)
    args, kwargs = as_arguments(example_inputs)
    # what moves: the tensors of state_dict(), without those that are to stay fixed
    everything = named_tensors(module)
    saved = {name for name, tensor in module.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
    tensors = {name: tensor for name, tensor in everything.items() if name in saved}
    held = set(names_under(fixed, everything)) & saved
    if not buffers:
        parameters = {id(parameter) for parameter in module.parameters()}
        constants = [name for name, tensor in tensors.items() if id(tensor) not in parameters]
        held |= {name for name in constants if name.rpartition(".")[2] not in RUNNING}
    # what stays fixed as the inputs do: tensors that state_dict() does not hold
    ids = {id(tensor) for tensor in tensors.values()}
    unsaved = [tensor for tensor in everything.values() if id(tensor) not in ids]

    def run(tracer: Tracer) -> object:
        with ExitStack() as stack:
            _watch(module, tracer, stack)
            for path, part in (described or {}).items():
                follow_by_hand(module, path, part, tracer, stack)
            with plain_kernels(), tracer:
                return module(*args, **kwargs)

    return _solve(run, tensors, [*args, *kwargs.values(), *unsaved], held, 0, {})


def infer_function(
    function: Callable,
    weights: Weights,
    example_inputs: object,
    *,
    leading: int = 1,
    fixed: Iterable[str] = (),
    masks: Mapping[str, Tensor] | None = None,
) -> PermutationSpec:
    """Find the symmetry of a pure function of a dictionary of weights, such as ``representation.evaluate``.

    Args:
        function: Called as ``function(weights, *inputs)``. All else that it reads is a constant.
        weights: Tensors ``(L..., *shape)``; for a batched function of one or two networks.
        example_inputs: One tensor, a tuple of arguments, or a dict of keyword arguments.
        leading: Number of leading axes L that count networks; no part of the spec.
        fixed: Names of tensors, or beginnings of names up to a dot, that stay fixed.
        masks: Boolean masks ``shape`` of frozen (or of trainable) entries; a permutation that changes a mask is none.

    Returns:
        The spec of one network.

    Raises:
        UserError: An operation without a rule.
    """
    args, kwargs = as_arguments(example_inputs)
    held = set(names_under(fixed, weights))

    def run(tracer: Tracer) -> object:
        with plain_kernels(), tracer:
            return function(dict(weights), *args, **kwargs)

    return _solve(run, weights, [*args, *kwargs.values()], held, leading, masks or {})


def _watch(module: nn.Module, tracer: Tracer, stack: ExitStack) -> None:
    """Let the tracer know which submodule is running."""

    def enter(path: str) -> Callable:
        return lambda *_: tracer.modules.append(path)

    def leave(*_) -> None:
        tracer.modules.pop()

    for path, part in module.named_modules():
        stack.callback(part.register_forward_pre_hook(enter(path)).remove)
        stack.callback(part.register_forward_hook(leave, always_call=True).remove)


def _solve(
    run: Callable[[Tracer], object],
    tensors: Weights,
    inputs: Sequence,
    held: set[str],
    leading: int,
    masks: Mapping[str, Tensor],
) -> PermutationSpec:
    """Trace ``run``, which gives outputs of weights ``(L..., *shape)`` and fixed inputs, solve, and write the spec."""
    # 1. follow the axes of all tensors through one run: equations between the axes of the weights
    table = _traced(run, tensors, inputs, held, leading)
    # 2. nothing is known of weights that the run never used
    for name, axes in table.weights.items():
        if name not in table.used:
            for axis in axes:
                fix(axis)
    # 3. write what may still move, and fix what a mask forbids, until all permutations keep all masks
    weights = {name: axes[leading:] for name, axes in table.weights.items()}
    shapes = {name: tuple(tensor.shape[leading:]) for name, tensor in tensors.items()}
    while True:
        spec, atoms = _write(weights, table.used, shapes)
        broken = [name for name in spec.permutations if not _keeps_masks(spec, name, masks)]
        if not broken:
            return spec
        fix([atoms[name] for name in broken])


def _traced(run, tensors: Weights, inputs: Sequence, held: set[str], leading: int) -> Table:
    """The axes of all tensors after one run; it is repeated where a constant turns out to be written to."""
    written: frozenset[int] = frozenset()
    while True:
        # weights may move, inputs may not
        table = Table(written)
        for name, tensor in tensors.items():
            table.add_weight(name, tensor, name in held, leading)
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                table.enter_input(leaf)
        try:
            tracer = Tracer(table)
            outputs = tensors_in(run(tracer))
        except WrittenConstantError as constant:
            written |= {constant.index}
            continue
        # the outputs stay as they are, and so does what the example did not reach
        for output in outputs:
            table.hold(output)
        fix_unreached(table, tracer.steps, outputs)
        return table


def _write(weights, used: Sequence[str], shapes: Mapping[str, tuple[int, ...]]):
    """The spec of solved weights, and the atom of each of its permutations."""
    spelled = express(weights)
    names = name_atoms(spelled, used)
    axes = {name: tuple(written(parts, names) for parts in spelled[name]) for name in weights}
    within = {name: tuple(names[p] for p in atom.parents) for atom, name in names.items() if atom.parents}
    ordered = parents_first(list(names.values()), within)
    atoms = {name: atom for atom, name in names.items()}
    sizes, held = ({name: atoms[name].size for name in ordered if atoms[name].free is free} for free in (True, False))
    spec = PermutationSpec(axes, sizes, within, shapes, held)
    return spec, atoms


def _keeps_masks(spec: PermutationSpec, name: str, masks: Mapping[str, Tensor]) -> bool:
    """Whether all elements of one permutation leave all masks as they are."""
    touched = {key: mask for key, mask in masks.items() if mask is not None and key in spec.axes}
    generator = torch.Generator().manual_seed(0)
    shape = spec.table_shape(name)
    swap = torch.arange(shape[-1])
    swap[:2] = swap[:2].flip(0)
    tables = [table.expand(shape) for table in (swap, torch.arange(shape[-1]).roll(1))]  # these two generate all
    tables += [spec.random_permutation(generator, names=[name])[name] for _ in range(MASK_TRIALS)]
    moved = (spec.apply(touched, {name: table}) for table in tables)
    return all(torch.equal(after[key], mask) for after in moved for key, mask in touched.items())
