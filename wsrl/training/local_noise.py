"""The local reparameterisation trick for modules as they are: noise on the outputs of layers in place of weights.

A linear layer with independent Gaussian weights has Gaussian outputs: their mean is that of the layer with the mean
weights, their variance that of a layer with the variances of the weights on squared inputs. Drawing outputs, each
example on its own, gives gradients of less variance than drawing weights. For a layer that sees one input of each
example this is the posterior exactly; outputs of a convolution, or of a linear layer along a sequence, are in truth
correlated between positions, which is left out.

Source: Kingma, Salimans and Welling, NeurIPS 2015, section 2.3; Molchanov et al., ICML 2017, for convolutions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._pytree import tree_leaves

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
SMALLEST_VARIANCE = 1e-16  # a unit whose inputs are all zero has none, where the root has no slope
Layers = Mapping[str, Mapping[str, str]]


def local_layers(module: nn.Module, means: Mapping[str, Tensor], example: Tensor) -> dict[str, dict[str, str]]:
    """Layers whose noise may be put on their outputs.

    They are plain linear or convolutional layers that run once in a forward pass, whose parameters all are among the
    means, belong to no other layer and are read by nothing else.

    Args:
        module: Any module.
        means: The tensors that have a posterior.
        example: A few inputs.

    Returns:
        For the path of each layer the full names of its ``weight`` and, where it has one, its ``bias``.
    """
    owners = [id(each) for _, each in module.named_parameters(remove_duplicate=False)]
    layers = {}
    for path, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=True))
        names = {key: f"{path}.{key}" if path else key for key in own}
        plain = type(layer) in LAYERS and set(own) <= {"weight", "bias"} and set(names.values()) <= set(means)
        alone = plain and all(owners.count(id(each)) == 1 for each in own.values())
        if alone and _only_read_inside(module, path, layer, names, means, example):
            layers[path] = names
    return layers


def _only_read_inside(module, path, layer, names, means, example) -> bool:
    """Whether a layer runs once, and nothing but the layer notices where its weights are not numbers."""
    calls = []

    def stand_in(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        calls.append(path)
        return _linear_map(layer, args[0], means[names["weight"]], means[names["bias"]] if "bias" in names else None)

    weights = {
        name: torch.full_like(each, torch.nan) if name in names.values() else each for name, each in means.items()
    }
    handle = layer.register_forward_hook(stand_in)
    try:
        with torch.no_grad():
            result = functional_call(module, weights, (example,))
    finally:
        handle.remove()
    outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
    return len(calls) == 1 and bool(outputs) and all(bool(each.isfinite().all()) for each in outputs)


class LocalNoise:
    """Within the block, layers of a module add the noise of their weights to their outputs.

    Args:
        module: The module, called with the means of the layers' weights.
        layers: What :func:`local_layers` found.
        stds: Standard deviation of every tensor.
        generator: Source of the noise.
    """

    def __init__(self, module: nn.Module, layers: Layers, stds: Mapping[str, Tensor], generator: torch.Generator):
        self._module, self._layers = module, layers
        self._stds, self._generator = stds, generator
        self._handles = []

    def __enter__(self) -> None:
        for path, names in self._layers.items():
            layer = self._module.get_submodule(path)
            self._handles.append(layer.register_forward_hook(self._noisy(names)))

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _noisy(self, names: Mapping[str, str]):
        variances = {key: self._stds[name].square() for key, name in names.items()}

        def add(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            variance = _linear_map(layer, args[0].square(), variances["weight"], variances.get("bias"))
            noise = torch.randn(output.shape, generator=self._generator, dtype=output.dtype)
            return output + (variance + SMALLEST_VARIANCE).sqrt() * noise

        return add


def _linear_map(layer: nn.Module, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer makes of inputs with other weights."""
    if isinstance(layer, nn.Linear):
        return functional.linear(inputs, weight, bias)
    return layer._conv_forward(inputs, weight, bias)
