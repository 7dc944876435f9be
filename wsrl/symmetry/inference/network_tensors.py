"""The tensors of a network: those of a module, of its inputs and of its outputs, by name where they have one."""

import copy
from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsrl.errors import UserError

RUNNING = ("running_mean", "running_var")
"""Buffers that are statistics of channels: they always move with them."""


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, tied ones under each name, and under those that ``state_dict()`` gives them."""
    tensors = dict(module.named_parameters(remove_duplicate=False))
    for name, buffer in module.named_buffers(remove_duplicate=False):
        tensors.setdefault(name, buffer)
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and any(tensor is own for own in tensors.values()):
            tensors.setdefault(name, tensor)
    return tensors


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


def names_under(fixed: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names that are among some, or that begin with one of these and a dot."""
    names, under = list(names), []
    for start in [fixed] if isinstance(fixed, str) else fixed:
        hits = [name for name in names if name == start or name.startswith(start.rstrip(".") + ".")]
        if not hits:
            raise UserError(f"fixed names {start!r}, which is no tensor", allowed=", ".join(names), do="mend fixed")
        under += hits
    return under


def tensors_in(result: object) -> list[Tensor]:
    """All tensors of a result, those that are attributes of plain objects included."""
    tensors = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif hasattr(leaf, "__dict__"):
            tensors += [value for value in tree_leaves(list(vars(leaf).values())) if isinstance(value, Tensor)]
    return tensors
