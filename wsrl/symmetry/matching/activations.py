"""Activation matching: units that do the same on the same examples are put in the same place.

Letters: N examples, S samples of a unit (examples and positions), C units.
"""

import copy
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.symmetry.matching.barriers import estimate_statistics, load_weights
from wsrl.symmetry.matching.matching import Matching, agreement, match_weights
from wsrl.symmetry.spec.axes import Axis, names_in
from wsrl.symmetry.spec.permute import Weights
from wsrl.symmetry.spec.spec import PermutationSpec

NUM_SAMPLES = 4096
READ_AT_ONCE = 500
WEAK = 1e-2
"""The largest agreement of all weights beside the correlation of one unit."""
CONVOLUTIONS = (nn.modules.conv._ConvNd,)


@dataclass(frozen=True)
class Readout:
    """Where the activations of units can be read.

    Attributes:
        path: Path of a submodule.
        side: ``input`` or ``output`` of the submodule; its first tensor.
        dim: Dimension of that tensor that counts the units.
    """

    path: str
    side: str = "output"
    dim: int = -1

    def __str__(self):
        return f"the {self.side} of {self.path!r} along {self.dim}"


def match_activations(
    spec: PermutationSpec,
    module: nn.Module,
    reference: Weights,
    moving: Weights,
    inputs: Tensor,
    *,
    readouts: Mapping[str, Readout | Iterable[Readout]] | None = None,
    num_samples: int = NUM_SAMPLES,
    generator: torch.Generator | None = None,
) -> Matching:
    """Align one network with another by the correlation of their units' activations.

    Args:
        spec: The symmetry.
        module: The module of both networks; a copy of it is used, in evaluation mode.
        reference: Weights of the network that stays.
        moving: Weights of the network that is moved.
        inputs: Examples ``(N, ...)``.
        readouts: For a permutation where to read its units. Those that are left out are read where linear layers and
            convolutions take them in, or else where these give them out; what is found at neither is matched by its
            weights.
        num_samples: Most samples of each unit, drawn over examples and positions.
        generator: Randomness of that draw; None for a fixed seed.

    Returns:
        The permutation, and the sum of the correlations over all units and readouts. Its history has the weights in it,
        which decide between units of equal correlation.

    Raises:
        UserError: A readout of a submodule that does not exist, does not run or does not count the units.

    Source: Li et al., Convergent Learning, arXiv 1511.07543; Ainsworth et al., arXiv 2209.04836, section 3.1.
    """
    generator = generator or torch.Generator().manual_seed(0)
    # where units are read: at the readouts that were named, and wherever else permutations that these leave out are met
    named = _named_readouts(spec, module, readouts or {})
    covered = {name for _, axis in named for name in names_in(axis)}
    watched = named + [each for each in find_readouts(spec, module) if set(names_in(each[1])) - covered]
    # the activations of the same samples in both networks, as rows whose inner products are correlations
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    first, second = (
        _standardised(_activations(module, weights, inputs, watched, num_samples, seed))
        for weights in (reference, moving)
    )
    unreached = [readout for readout, _ in named if readout not in first]
    if unreached:
        raise UserError(f"{unreached[0]} is never reached", allowed="submodules that run", do="drop it from readouts")
    # rows (C, S) are tensors of a network of their own, whose first axes carry the permutations of the units
    axes = {str(readout): (axis, None) for readout, axis in watched if readout in first}
    first, second = ({str(readout): rows for readout, rows in seen.items()} for seen in (first, second))
    shapes = {key: tuple(rows.shape) for key, rows in first.items()}
    of_activations = replace(spec, axes=axes, shapes=shapes)
    # weight matching of that network and, faintly, of the weights, for units whose activations decide nothing
    together = replace(spec, axes=axes | spec.axes, shapes=shapes | spec.shapes)
    reference, moving = _weakened(spec, reference, moving)
    matching = match_weights(together, first | reference, second | moving, generator=generator)
    correlation = agreement(of_activations, first, of_activations.apply(second, matching.permutation))
    return replace(matching, objective=correlation)


def _weakened(spec: PermutationSpec, reference: Weights, moving: Weights) -> tuple:
    """Weights that decide where activations do not, such as between units that are never active."""
    names = [name for name in reference if name in spec.axes and reference[name].is_floating_point()]
    first, second = ({name: weights[name].double() for name in names} for weights in (reference, moving))
    sizes = [sum(float(t.square().sum()) for t in weights.values()) for weights in (first, second)]
    factor = WEAK**0.5 / max(sizes[0] * sizes[1], 1e-300) ** 0.25
    return tuple({name: tensor * factor for name, tensor in weights.items()} for weights in (first, second))


def find_readouts(spec: PermutationSpec, module: nn.Module) -> list[tuple[Readout, Axis]]:
    """Where linear layers, convolutions and embeddings take units in; else where they give them out.

    Returns:
        Places with the axis of the spec that stands there.
    """
    takes, gives = [], []
    for path, part in module.named_modules():
        axes = spec.axes.get(f"{path}.weight" if path else "weight")
        if axes is None or not isinstance(part, (nn.Linear, nn.Embedding, *CONVOLUTIONS)):
            continue
        dim = 1 if isinstance(part, CONVOLUTIONS) else -1
        turned = isinstance(part, nn.Embedding) or getattr(part, "transposed", False)
        out, into = (axes[1], axes[0]) if turned else (axes[0], axes[1])
        grouped = getattr(part, "groups", 1) > 1  # the second axis of its weight counts the units of one group
        if not grouped and not isinstance(part, nn.Embedding):
            takes.append((Readout(path, "input", dim), into))
        if not grouped or not turned:
            gives.append((Readout(path, "output", dim), out))
    inputs = [(readout, axis) for readout, axis in takes if names_in(axis)]
    read = {name for _, axis in inputs for name in names_in(axis)}
    return inputs + [(readout, axis) for readout, axis in gives if set(names_in(axis)) - read]


def _named_readouts(spec: PermutationSpec, module: nn.Module, readouts: Mapping) -> list[tuple[Readout, Axis]]:
    """The readouts that a user named, each with the permutation of its units."""
    paths, named = dict(module.named_modules()), []
    for name, own in readouts.items():
        if name not in spec.sizes or spec.within.get(name):
            raise UserError(
                f"readouts speaks of {name!r}",
                allowed=", ".join(n for n in spec.sizes if not spec.within.get(n)),
                do="name a permutation of the spec that acts within no other",
            )
        for readout in [own] if isinstance(own, Readout) else own:
            if readout.path not in paths or readout.side not in ("input", "output"):
                raise UserError(
                    f"readouts[{name!r}] is the {readout.side} of {readout.path!r}",
                    allowed=f"the input or output of one of {', '.join(paths)}",
                    do="name a submodule by its path",
                )
            named.append((readout, name))
    return named


def _activations(
    module: nn.Module,
    weights: Weights,
    inputs: Tensor,
    readouts: list[tuple[Readout, Axis]],
    num_samples: int,
    seed: int,
) -> dict[Readout, Tensor]:
    """Activations ``(C, S)`` at every readout that is reached; the same samples for all networks of a module."""
    module = copy.deepcopy(module).eval()
    load_weights(module, weights)
    batches = inputs.split(READ_AT_ONCE)
    estimate_statistics(module, batches)
    seen: dict[Readout, list[Tensor]] = {readout: [] for readout, _ in readouts}
    share = -(-num_samples // len(batches))
    with ExitStack() as stack, torch.no_grad():
        for readout, rows in seen.items():
            stack.callback(_watch(module.get_submodule(readout.path), readout, rows, share, seed))
        for batch in batches:
            module(batch)
    return {readout: torch.cat(rows).T.double() for readout, rows in seen.items() if rows}


def _watch(part: nn.Module, readout: Readout, seen: list[Tensor], share: int, seed: int):
    """Let a submodule note its activations ``(S, C)``; returns what ends it."""

    def note(tensor) -> None:
        tensor = tensor[0] if isinstance(tensor, (tuple, list)) else tensor
        rows = tensor.detach().movedim(readout.dim, -1).flatten(0, -2)  # (S, C)
        if len(rows) > share:
            own = torch.Generator().manual_seed((seed + len(seen)) % 2**63)
            rows = rows[torch.randperm(len(rows), generator=own)[:share].to(rows.device)]
        seen.append(rows.cpu())

    if readout.side == "input":
        return part.register_forward_pre_hook(lambda _, inputs: note(inputs)).remove
    return part.register_forward_hook(lambda _, inputs, result: note(result)).remove


def _standardised(activations: dict[Readout, Tensor]) -> dict[Readout, Tensor]:
    """Rows of mean zero and length one, so that inner products are correlations; units that never change are zero."""
    centred = {key: rows - rows.mean(1, keepdim=True) for key, rows in activations.items()}
    return {key: rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12) for key, rows in centred.items()}
