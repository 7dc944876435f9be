"""A network as a function of its weights in float64, weights that hide nothing of it, and those that it never reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wsrl.errors import UserError
from wsrl.symmetry.inference.double_precision import in_double
from wsrl.symmetry.inference.network_tensors import RUNNING, as_arguments, evaluation_copy, named_tensors, tensors_in
from wsrl.symmetry.inference.trace import plain_kernels
from wsrl.symmetry.spec.permute import Weights
from wsrl.symmetry.spec.spec import PermutationSpec

DRAWINGS = 8
"""Weights at which gradients are looked at, while some are zero at all before."""


class DoubleNetwork:
    """A network that computes in float64, as a function of its weights alone.

    Args:
        spec: Says which axes of a function's weights are those of one network.
        network: A module, of which a copy in evaluation mode is used, or a function of weights with a batch axis.
        inputs: What it takes: one tensor, a tuple or a dict of arguments.
        weights: Weights of a function; a module has its own.

    Attributes:
        start: The weights that it has, ``shape``.

    Raises:
        UserError: A function without weights, or a spec of other tensors.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        network: nn.Module | Callable,
        inputs: object,
        weights: Weights | None,
    ):
        self.args, self.kwargs = as_arguments(tree_map(_as_double, inputs))
        self.is_module = isinstance(network, nn.Module)
        self.network = evaluation_copy(network).double() if self.is_module else network
        if self.is_module:
            self._own = named_tensors(self.network)
        elif weights is None:
            raise UserError(
                "a function was given without weights", allowed="weights of one network", do="pass weights="
            )
        else:
            self._own = {name: _single(spec, name, _as_double(tensor)) for name, tensor in weights.items()}
        unknown = [name for name in spec.axes if name not in self._own]
        if unknown:
            raise UserError(f"the network has no tensor {unknown[0]}", allowed=", ".join(self._own), do="mend the spec")
        self.start = {name: tensor.detach().clone() for name, tensor in self._own.items()}

    def outputs(self, weights: Weights) -> list[Tensor]:
        """All tensors that the network gives with some weights ``shape``."""
        with _repeatable():
            return [tensor.detach().clone() for tensor in self._run(weights)]

    def gradients(self, weights: Weights) -> dict[str, Tensor | None]:
        """Gradients of the sum of all squared outputs by the weights, None where there is none."""
        real = [name for name in weights if self._own[name].is_floating_point()]
        if not self.is_module:
            weights = {**weights, **{name: weights[name].clone() for name in real}}
        wanted = {name: self._own[name] if self.is_module else weights[name] for name in real}
        flagged = [tensor for tensor in wanted.values() if tensor.is_leaf]
        with _repeatable(), torch.enable_grad():
            for tensor in flagged:
                tensor.requires_grad_(True)
            try:
                parts = [out.abs().square().sum() for out in self._run(weights) if out.requires_grad]
                every = list(wanted.values())
                gradients = torch.autograd.grad(torch.stack(parts).sum(), every, allow_unused=True) if parts else ()
            except RuntimeError:  # it writes into its tensors, or has no gradients: nothing is known from them
                gradients = ()
            for tensor in flagged:
                tensor.requires_grad_(False)
        return dict(zip(wanted, gradients or [None] * len(wanted)))

    def _run(self, weights: Weights) -> list[Tensor]:
        if not self.is_module:
            batch = {name: value.unsqueeze(0) for name, value in weights.items()}  # (1, *shape)
            return tensors_in(self.network(batch, *self.args, **self.kwargs))
        for name, value in weights.items():  # in place: some modules keep lists of their parameters
            self._own[name].data.copy_(value)
        return tensors_in(self.network(*self.args, **self.kwargs))


@contextmanager
def _repeatable() -> Iterator[None]:
    """Run in float64, by plain kernels, with the same random numbers each time."""
    with torch.random.fork_rng(devices=[]), plain_kernels(), in_double():
        torch.manual_seed(0)
        yield


def _single(spec: PermutationSpec, name: str, tensor: Tensor) -> Tensor:
    """Weights of one network without the batch axis."""
    return tensor[0] if name in spec.axes and tensor.ndim > len(spec.axes[name]) else tensor


def _as_double(leaf):
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def drawing(module: nn.Module | Callable, own: Weights, generator: torch.Generator) -> Callable[[], dict[str, Tensor]]:
    """What draws new weights in place of a network's, and leaves those whose values mean something.

    Args:
        module: The network.
        own: Its tensors.
        generator: Randomness.
    """
    is_module = isinstance(module, nn.Module)
    parameters = dict(module.named_parameters(remove_duplicate=False)) if is_module else {}
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)} if is_module else set()
    kept = {name for name, tensor in own.items() if _has_meaning(name, tensor, parameters.get(name), name in buffers)}
    return lambda: {
        name: tensor if name in kept else _drawn(name, tensor, generator, name in buffers)
        for name, tensor in own.items()
    }


def _has_meaning(name: str, tensor: Tensor, parameter: nn.Parameter | None, is_buffer: bool) -> bool:
    """Whether it is a mask or a buffer of different numbers, and nothing that is trained or a running statistic."""
    is_frozen = is_buffer or (parameter is not None and not parameter.requires_grad)
    if not is_frozen or name.rpartition(".")[2] in RUNNING or not tensor.numel():
        return False
    if tensor.layout != torch.strided:  # the places of a sparse one
        return True
    varies = bool((tensor != tensor.reshape(-1)[0]).any())
    return varies and (is_buffer or bool(((tensor == 0) | (tensor == 1)).all()))


def _drawn(name: str, tensor: Tensor, generator: torch.Generator, is_buffer: bool) -> Tensor:
    """Random values in place of a tensor's, of the size that keeps activations bounded; tied tensors are alike."""
    if tensor.layout != torch.strided:  # the places of a sparse one are no weights
        return tensor
    if not tensor.is_floating_point() or tensor.ndim == 0 or not torch.isfinite(tensor).all():
        return tensor
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    own = torch.Generator().manual_seed(seed)
    if name.rpartition(".")[2] == "running_var" or (is_buffer and bool((tensor != 0).all())):  # its sign may matter
        size = 1.0 if name.rpartition(".")[2] == "running_var" else tensor.mean()
        return size * (torch.rand(tensor.shape, generator=own, dtype=tensor.dtype) + 0.5)
    noise = torch.randn(tensor.shape, generator=own, dtype=tensor.dtype)
    if tensor.ndim == 1:
        return noise * 0.5 + tensor.mean()
    return noise * (len(tensor) / tensor.numel()) ** 0.5


def unread_entries(network: DoubleNetwork, start: Weights, draw: Callable[[], Weights]) -> dict[str, Tensor]:
    """Entries of weights on which the outputs do not depend.

    Args:
        network: The network.
        start: Weights.
        draw: Gives others. What stays the same in them is left out, such as masks and whole numbers.

    Returns:
        For each tensor that has such entries, where they are ``shape`` (boolean).
    """
    # gradients that are zero at all of several weights, so that this is no matter of units that are off by chance
    other, still = draw(), {}
    for number in range(DRAWINGS):
        weights = (start, other)[number] if number < 2 else draw()
        for name, gradient in network.gradients(weights).items():
            zero = torch.ones_like(start[name], dtype=torch.bool) if gradient is None else gradient == 0
            still[name] = still[name] & zero if name in still else zero
        if not any(entries.any() for entries in still.values()):
            return {}
    # other values in their place change nothing, so that it is none of operations without gradients
    before, unread = network.outputs(start), {}
    for name, entries in still.items():
        if entries.any() and not torch.equal(start[name], other[name]):
            after = network.outputs({**start, name: torch.where(entries, other[name], start[name])})
            if all(map(torch.equal, before, after)):
                unread[name] = entries
    return unread
