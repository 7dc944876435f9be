"""A network as a function of its weights in float64, and weights that hide nothing of it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wsrl.errors import UserError
from wsrl.symmetry.inference.coverage import squares
from wsrl.symmetry.inference.double_precision import in_double
from wsrl.symmetry.inference.inference import RUNNING, as_arguments, evaluation_copy, named_tensors, tensors_in
from wsrl.symmetry.inference.trace import plain_kernels
from wsrl.symmetry.spec.spec import PermutationSpec


def runner(spec: PermutationSpec, module, inputs, weights) -> tuple[Callable, Callable, dict[str, Tensor]]:
    """Functions from weights to the outputs as a list of tensors and to gradients, and the weights to start from."""
    args, kwargs = as_arguments(tree_map(_as_double, inputs))
    if isinstance(module, nn.Module):
        module = evaluation_copy(module).double()
        own = named_tensors(module)

        def call(values):
            for name, value in values.items():  # in place: some modules keep lists of their parameters
                own[name].data.copy_(value)
            return module(*args, **kwargs)
    else:
        if weights is None:
            raise UserError(
                "a function was given without weights", allowed="weights of one network", do="pass weights="
            )
        own = {name: _single(spec, name, _as_double(tensor)) for name, tensor in weights.items()}

        def call(values):
            return module({name: value.unsqueeze(0) for name, value in values.items()}, *args, **kwargs)

    unknown = [name for name in spec.axes if name not in own]
    if unknown:
        raise UserError(f"the network has no tensor {unknown[0]}", allowed=", ".join(own), do="mend the spec")

    def run(values):
        with torch.random.fork_rng(devices=[]), plain_kernels(), in_double():
            torch.manual_seed(0)
            return [tensor.detach().clone() for tensor in tensors_in(call(values))]

    def follow(values):
        leaves = {name: own[name] for name in values if own[name].is_floating_point()}
        if not isinstance(module, nn.Module):
            values = {**values, **{name: values[name].clone() for name in leaves}}
            leaves = {name: values[name] for name in leaves}
        with torch.random.fork_rng(devices=[]), plain_kernels(), in_double(), torch.enable_grad():
            torch.manual_seed(0)
            flagged = [tensor for tensor in leaves.values() if tensor.is_leaf]
            for tensor in flagged:
                tensor.requires_grad_(True)
            try:
                score = squares(tensors_in(call(values)))
                wanted = list(leaves.values())
                gradients = () if score is None else torch.autograd.grad(score, wanted, allow_unused=True)
            except RuntimeError:  # it writes into its tensors, or has no gradients: nothing is known from them
                gradients = ()
            for tensor in flagged:
                tensor.requires_grad_(False)
        return dict(zip(leaves, gradients or [None] * len(leaves)))

    return run, follow, {name: tensor.detach().clone() for name, tensor in own.items()}


def _single(spec: PermutationSpec, name: str, tensor: Tensor) -> Tensor:
    """Weights of one network without the batch axis."""
    return tensor[0] if name in spec.axes and tensor.ndim > len(spec.axes[name]) else tensor


def _as_double(leaf):
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def drawing(
    module: nn.Module | Callable, own: Mapping[str, Tensor], generator: torch.Generator
) -> Callable[[], dict[str, Tensor]]:
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
