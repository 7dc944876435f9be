"""A plain stack of linear layers, made again from the names and shapes of its tensors."""

from torch import Tensor, nn
from torch.nn import functional

from wsrl.errors import UserError
from wsrl.symmetry.matching.layer_order import layer_orders, natural
from wsrl.symmetry.spec.permute import Weights

ALLOWED = "weights (out, in) that fit one behind the other, each with or without a bias (out,)"
DO = (
    "say what the network is: a module (--network MODULE:FUNCTION, network= in Python) or a permutation spec "
    "(--spec FILE, spec= in Python)"
)


class LinearStack(nn.Module):
    """Linear layers with ReLU between them, under the names of their tensors.

    Args:
        weights: Its tensors, ``<layer>.weight`` ``(out, in)`` and ``<layer>.bias`` ``(out,)``.

    Raises:
        UserError: The tensors are none of a plain stack, or their order is not clear.
    """

    def __init__(self, weights: Weights):
        super().__init__()
        self.order = layers_in_order(weights)
        for name in self.order:
            weight = weights[f"{name}.weight"]
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in weights, dtype=weight.dtype)
            _add_submodule(self, name, layer)
        self.load_state_dict(dict(weights))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``(N, out)`` of inputs ``(N, in)``."""
        *hidden, last = [self.get_submodule(name) for name in self.order]
        for layer in hidden:
            inputs = functional.relu(layer(inputs))
        return last(inputs)


def layers_in_order(weights: Weights) -> list[str]:
    """Names of the layers from the first to the last.

    Numbers in the names and the shapes tell the order, where only one fits both; the alphabet and the order of the
    dictionary don't: a file may have lost it.

    Raises:
        UserError: There is no such order, or several.
    """
    # weights with two axes and biases that fit them, and nothing else
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    known = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    other = [name for name in weights if name not in known]
    other += [f"{name}.weight" for name in names if weights[f"{name}.weight"].ndim != 2]
    other += [f"{n}.bias" for n in names if not _fits_bias(weights, n)]
    if other or not names:
        what = f"it has {other[0]!r}" if other else "it has no weights"
        raise UserError(f"the network is no plain stack of linear layers: {what}", allowed=ALLOWED, do=DO)
    # the one order in which each layer takes what the one before it gives
    orders = layer_orders(names, lambda before, name, index: before is None or _fit(weights, before, name))
    if len(orders) != 1:
        count = "more than one order" if orders else "no order"
        more = "; only numbers at one place of their names, as in fc1 and fc2, say which comes first" if orders else ""
        raise UserError(
            f"the layers {', '.join(sorted(names, key=natural))} fit together in {count}{more}", allowed=ALLOWED, do=DO
        )
    return orders[0]


def _fits_bias(weights: Weights, name: str) -> bool:
    bias = weights.get(f"{name}.bias")
    return bias is None or bias.shape == weights[f"{name}.weight"].shape[:1]


def _fit(weights: Weights, before: str, after: str) -> bool:
    return weights[f"{before}.weight"].shape[0] == weights[f"{after}.weight"].shape[1]


def _add_submodule(root: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer under a dotted path, with plain modules above it."""
    *folders, last = path.split(".")
    for folder in folders:
        if folder not in dict(root.named_children()):
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    root.add_module(last, layer)
