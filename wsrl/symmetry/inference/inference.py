"""Finding the symmetry of a network: trace it once, solve for what its axes may do, and write the spec."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import wsrl.symmetry.inference.rules_linear
import wsrl.symmetry.inference.rules_order
import wsrl.symmetry.inference.rules_places
import wsrl.symmetry.inference.rules_pointwise
import wsrl.symmetry.inference.rules_shape
import wsrl.symmetry.inference.rules_sparse  # noqa: F401  (registers rules)
from wsrl.errors import UserError
from wsrl.symmetry.inference.described import Given, follow_by_hand
from wsrl.symmetry.inference.known_axes import Table, WrittenConstantError
from wsrl.symmetry.inference.naming import express, name_atoms, written
from wsrl.symmetry.inference.reach import fix_unreached
from wsrl.symmetry.inference.terms import fix
from wsrl.symmetry.inference.trace import Tracer, plain_kernels
from wsrl.symmetry.spec.permute import parents_first
from wsrl.symmetry.spec.spec import PermutationSpec

RUNNING = ("running_mean", "running_var")
"""Buffers that are statistics of channels: they always move with them."""
MASK_TRIALS = 4


def infer_module(
    module: nn.Module,
    example_inputs: object,
    *,
    given: Mapping[str, Given] | None = None,
    fixed: Iterable[str] = (),
    buffers: bool = True,
) -> PermutationSpec:
    """Find for every axis of every parameter and saved buffer the permutation that acts on it.

    The module runs once, as a copy in evaluation mode. Axes of its inputs and outputs are fixed, and so is every tensor
    that it never reads, and what the example does not reach of others: the rows of a table beyond its length.

    Args:
        module: Any module.
        example_inputs: One tensor, a tuple of arguments, or a dict of keyword arguments.
        given: Parts that are described by hand: for the path of a submodule how its tensors, inputs and outputs move.
            It then runs without being traced.
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
    everything = named_tensors(module)
    saved = saved_names(module)
    tensors = {name: tensor for name, tensor in everything.items() if name in saved}
    held = set(matching(fixed, everything)) & saved
    if not buffers:
        parameters = {id(parameter) for parameter in module.parameters()}
        constants = [name for name, tensor in tensors.items() if id(tensor) not in parameters]
        held |= {name for name in constants if name.rpartition(".")[2] not in RUNNING}
    ids = {id(tensor) for tensor in tensors.values()}
    unsaved = [tensor for tensor in everything.values() if id(tensor) not in ids]

    def run(tracer: Tracer) -> object:
        with ExitStack() as stack:
            _watch(module, tracer, stack)
            for path, part in (given or {}).items():
                follow_by_hand(module, path, part, tracer, stack)
            with plain_kernels(), tracer:
                return module(*args, **kwargs)

    return _solve(run, tensors, [*args, *kwargs.values(), *unsaved], held, 0, {})


def infer_function(
    function: Callable,
    weights: Mapping[str, Tensor],
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
    held = set(matching(fixed, weights))

    def run(tracer: Tracer) -> object:
        with plain_kernels(), tracer:
            return function(dict(weights), *args, **kwargs)

    return _solve(run, weights, [*args, *kwargs.values()], held, leading, masks or {})


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, tied ones under each name, and under those that ``state_dict()`` gives them."""
    found = dict(module.named_parameters(remove_duplicate=False))
    for name, buffer in module.named_buffers(remove_duplicate=False):
        found.setdefault(name, buffer)
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and any(tensor is own for own in found.values()):
            found.setdefault(name, tensor)
    return found


def saved_names(module: nn.Module) -> set[str]:
    """Names of the tensors that ``state_dict()`` holds."""
    return {name for name, tensor in module.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}


def evaluation_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode.

    Raises:
        UserError: The module cannot be copied.
    """
    try:
        return copy.deepcopy(module).eval()
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the module cannot be copied ({error})",
            allowed="modules that copy.deepcopy copies",
            do="use torch.nn.utils.parametrizations in place of weight_norm and spectral_norm; drop stored activations",
        ) from error


def as_arguments(inputs: object) -> tuple[tuple, dict]:
    """Positional and keyword arguments of what a user passes as inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def matching(fixed: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names that are given, whole or by their beginning."""
    names, found = list(names), []
    fixed = [fixed] if isinstance(fixed, str) else fixed
    for start in fixed:
        hits = [name for name in names if name == start or name.startswith(start.rstrip(".") + ".")]
        if not hits:
            raise UserError(f"fixed names {start!r}, which is no tensor", allowed=", ".join(names), do="mend fixed")
        found += hits
    return found


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
    tensors: Mapping[str, Tensor],
    inputs: Sequence,
    held: set[str],
    leading: int,
    masks: Mapping[str, Tensor],
) -> PermutationSpec:
    """Trace, fix what is given from outside, and write the spec."""
    table = _traced(run, tensors, inputs, held, leading)
    for name, axes in table.weights.items():
        if name not in table.used:
            for axis in axes:
                fix(axis)
    weights = {name: axes[leading:] for name, axes in table.weights.items()}
    shapes = {name: tuple(tensor.shape[leading:]) for name, tensor in tensors.items()}
    while True:
        spec, atoms = _write(weights, table.used, shapes)
        broken = [name for name in spec.permutations if not _keeps_masks(spec, name, masks)]
        if not broken:
            return spec
        fix([atoms[name] for name in broken])


def _traced(run, tensors: Mapping[str, Tensor], inputs: Sequence, held: set[str], leading: int) -> Table:
    written: frozenset[int] = frozenset()
    while True:
        table = Table(written)
        for name, tensor in tensors.items():
            table.add_weight(name, tensor, name in held, leading)
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                table.enter_input(leaf)
        try:
            tracer = Tracer(table)
            outputs = tensors_in(run(tracer))
        except WrittenConstantError as found:
            written |= {found.index}
            continue
        for output in outputs:
            table.hold(output)
        fix_unreached(table, tracer.steps, outputs)
        return table


def tensors_in(result: object) -> list[Tensor]:
    """All tensors of a result, those that are attributes of plain objects included."""
    found = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__"):
            found += [value for value in tree_leaves(list(vars(leaf).values())) if isinstance(value, Tensor)]
    return found


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
    size = shape[-1]
    swap = torch.arange(size)
    swap[:2] = swap[:2].flip(0)
    chosen = [table.expand(shape) for table in (swap, torch.arange(size).roll(1))]  # these two generate all
    chosen += [spec.random_permutation(generator, names=[name])[name] for _ in range(MASK_TRIALS)]
    for table in chosen:
        moved = spec.apply(touched, {name: table})
        if any(not torch.equal(moved[key], mask) for key, mask in touched.items()):
            return False
    return True
