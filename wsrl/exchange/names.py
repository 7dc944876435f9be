"""Which tensor of a file is which of ours: by a map of the user, or guessed where a file is a plain stack of layers."""

import re
from collections.abc import Iterable, Mapping
from itertools import combinations

from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.symmetry.matching.layer_order import layer_orders, natural, precedes_by_number

NUMBER = "{i}"
_WEIGHT, _BIAS = "weight", "bias"


def guess_names(tensors: Mapping[str, Tensor], layout: Layout, ordered: bool = True) -> dict[str, str]:
    """Name in a file of each of our tensors.

    Names that are ours already are taken as they are, also behind a common prefix. Otherwise the modules of the file
    are a stack: in the one order that the numbers in their names and the shapes allow, or, where these leave several,
    as they stand in a file that keeps the order.

    Args:
        tensors: The tensors of a file.
        layout: Ours.
        ordered: Whether the file keeps the order in which a module defines its layers (safetensors does not).

    Raises:
        UserError: The names or shapes do not fit, both sides are listed; or they fit in several orders.
    """
    # Our own names, with or without what all of them begin with.
    prefix = common_prefix(tensors)
    direct = {spec.name: prefix + spec.name for spec in layout}
    for names in (direct, {name: name for name in direct}):
        if set(names.values()) == set(tensors):
            return names
    # Otherwise a stack: the i-th module is our i-th layer.
    modules = list(dict.fromkeys(_module(name) for name in tensors))
    ours = [(spec.name, spec.shape) for spec in layout]
    names = {}
    for i, module in enumerate(_in_order(modules, tensors, dict(ours), ordered)):
        for kind in (_WEIGHT, _BIAS):
            names[f"layers.{i}.{kind}"] = _tensor(module, kind)
    # Every tensor is used once, and has our shape.
    fits = set(names) == {name for name, _ in ours} and set(names.values()) == set(tensors)
    if not fits or any(tuple(tensors[names[name]].shape) != shape for name, shape in ours):
        raise UserError(
            f"the tensors of the files do not fit the network. In the file: {_listed(tensors)}",
            allowed=", ".join(f"{name} {_shape(shape)}" for name, shape in ours),
            do="mend the description of the network, or say with `names:` in it which is which",
        )
    return {name: names[name] for name, _ in ours}


def _in_order(modules: list[str], tensors: Mapping[str, Tensor], ours: Mapping[str, tuple], ordered: bool) -> list[str]:
    """Modules from the first to the last; as they stand where no order fits.

    Raises:
        UserError: Several orders fit, and the file does not say which it is.
    """

    def fits(before: str | None, module: str, index: int) -> bool:
        actual = (tensors.get(_tensor(module, kind)) for kind in (_WEIGHT, _BIAS))
        wanted = (ours.get(f"layers.{index}.{kind}") for kind in (_WEIGHT, _BIAS))
        return all((None if t is None else tuple(t.shape)) == shape for t, shape in zip(actual, wanted))

    orders = layer_orders(modules, fits)
    if len(orders) < 2:
        return orders[0] if orders else modules
    positions = {name: number for number, name in enumerate(tensors)}
    pairs = [
        (positions.get(_tensor(m, _WEIGHT), -1), positions.get(_tensor(m, _BIAS), len(positions))) for m in modules
    ]
    is_defined = all(weight < bias for weight, bias in pairs)  # a module has its weight first, a sorted file its bias
    against = any(precedes_by_number(later, earlier) for earlier, later in combinations(modules, 2))
    if ordered and is_defined and not against and all(fits(None, module, n) for n, module in enumerate(modules)):
        return modules
    raise UserError(
        f"the layers {', '.join(sorted(modules, key=natural))} fit the network in more than one order, and nothing in "
        "the files says which it is",
        allowed="numbers at one place of the names, as in fc1 and fc2; torch files of module.state_dict(), which keep "
        "the order of definition (safetensors do not); or `names:` in the description of the network (network.yaml)",
        do="say with `names:` in the description which is which, as in "
        "names: {first.weight: layers.0.weight, first.bias: layers.0.bias, ...}",
    )


def map_names(tensors: Iterable[str], name_map: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """Name in a file of each of our tensors by a map from the file's names to ours.

    Args:
        tensors: Names in a file.
        name_map: From the file's names to ours; ``{i}`` in both stands for a number, counted from 0 in the order of the
            numbers that the file has (so ``net.{i}.weight`` may be 0, 2, 4).
        layout: Ours.

    Raises:
        UserError: Some of ours get no tensor, or two get one; both sides are listed.
    """
    tensors, pairs = list(tensors), []
    # every entry of the map names one tensor, or with {i} as many as have a number there
    for theirs, ours in name_map.items():
        if NUMBER not in theirs:
            pairs += [(ours, theirs)] if theirs in tensors else []
            continue
        pattern = re.compile(re.escape(theirs).replace(re.escape(NUMBER), r"(\d+)", 1))
        numbered = sorted((int(match[1]), match[0]) for match in map(pattern.fullmatch, tensors) if match)
        pairs += [(ours.replace(NUMBER, str(index)), name) for index, (_, name) in enumerate(numbered)]
    # each of ours exactly once
    wanted = [spec.name for spec in layout]
    if sorted(ours for ours, _ in pairs) != sorted(wanted):
        raise UserError(
            f"`names:` of the network gives {', '.join(f'{name} -> {ours}' for ours, name in pairs) or 'nothing'}. "
            f"In the file: {', '.join(tensors)}",
            allowed=f"exactly one tensor of the file for each of {', '.join(wanted)}",
            do="mend `names:`, a map from names in the file to ours such as net.{i}.linear.weight: layers.{i}.weight",
        )
    names = dict(pairs)
    return {name: names[name] for name in wanted}


def common_prefix(names: Iterable[str]) -> str:
    """What all names start with, up to and with a dot; empty for none."""
    split = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*split):
        if len(set(parts)) != 1 or parts[0].isdigit():
            break
        shared.append(parts[0])
    prefix = ".".join([*shared, ""])
    return prefix.removesuffix("layers.") if prefix.endswith("layers.") else prefix


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _tensor(module: str, kind: str) -> str:
    return f"{module}.{kind}" if module else kind


def _shape(shape) -> str:
    return "x".join(map(str, shape)) or "()"


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {_shape(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
