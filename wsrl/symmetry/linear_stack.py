"""A plain stack of linear layers, made again from the names and shapes of its tensors."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from wsrl.errors import UserError

ALLOWED = "weights (out, in) that fit one behind the other, each with or without a bias (out,)"
DO = "say what the network is: a module (--network MODULE:FUNCTION) or a permutation spec (--spec FILE)"


class LinearStack(nn.Module):
    """Linear layers with an activation between them, under given names.

    Args:
        weights: Its tensors, ``<layer>.weight`` ``(out, in)`` and ``<layer>.bias`` ``(out,)``.
        activation: What stands between the layers, which the tensors don't tell.

    Raises:
        UserError: The tensors are none of a plain stack, or their order is not clear.
    """

    def __init__(self, weights: Mapping[str, Tensor], activation: Callable[[Tensor], Tensor] = functional.relu):
        super().__init__()
        self.order, self.activation = layers_in_order(weights), activation
        for name in self.order:
            weight = weights[f"{name}.weight"]
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in weights, dtype=weight.dtype)
            _place(self, name, layer)
        self.load_state_dict(dict(weights))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``(N, out)`` of inputs ``(N, in)``."""
        *hidden, last = [self.get_submodule(name) for name in self.order]
        for layer in hidden:
            inputs = self.activation(layer(inputs))
        return last(inputs)


def layers_in_order(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers from the first to the last.

    Numbers in the names tell the order, or else the shapes where only one order fits.

    Raises:
        UserError: There is no such order, or several.
    """
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    known = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    other = [name for name in weights if name not in known]
    other += [f"{name}.weight" for name in names if weights[f"{name}.weight"].ndim != 2]
    other += [f"{n}.bias" for n in names if not _fits_bias(weights, n)]
    if other or not names:
        what = f"it has {other[0]!r}" if other else "it has no weights"
        raise UserError(f"the network is no plain stack of linear layers: {what}", allowed=ALLOWED, do=DO)
    natural = sorted(names, key=_natural)
    if _is_chain(weights, natural):
        return natural
    found = [chain for first in natural for chain in _chains(weights, [first], set(natural) - {first})]
    if len(found) != 1:
        count = "no order" if not found else "more than one order"
        raise UserError(f"the layers {', '.join(natural)} fit together in {count}", allowed=ALLOWED, do=DO)
    return found[0]


def _natural(name: str) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _fits_bias(weights: Mapping[str, Tensor], name: str) -> bool:
    bias = weights.get(f"{name}.bias")
    return bias is None or bias.shape == weights[f"{name}.weight"].shape[:1]


def _fit(weights: Mapping[str, Tensor], before: str, after: str) -> bool:
    return weights[f"{before}.weight"].shape[0] == weights[f"{after}.weight"].shape[1]


def _is_chain(weights: Mapping[str, Tensor], names: list[str]) -> bool:
    return all(_fit(weights, before, after) for before, after in pairwise(names))


def _chains(weights: Mapping[str, Tensor], chain: list[str], left: set[str]) -> list[list[str]]:
    """Up to two ways to go on to the end."""
    if not left:
        return [chain]
    found: list[list[str]] = []
    for name in sorted(left):
        if len(found) < 2 and _fit(weights, chain[-1], name):
            found += _chains(weights, [*chain, name], left - {name})
    return found[:2]


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer under a dotted path, with plain modules above it."""
    *folders, last = path.split(".")
    for folder in folders:
        if folder not in dict(root.named_children()):
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    root.add_module(last, layer)
