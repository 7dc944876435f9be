"""The symmetries of sine networks beside permutations: signs and phases of neurons, and a form that is free of them.

A neuron ``sin(omega (w x + b))`` stays the same where ``(w, b)`` and what reads it change sign, or where ``omega b``
moves by pi and what reads it changes sign.

Letters: N fields.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError


@dataclass(frozen=True)
class SineLayer:
    """The tensors that carry the neurons of one hidden layer.

    Attributes:
        weight: Name of the weight ``(neurons, in)``.
        bias: Name of the bias ``(neurons,)``.
        readers: Names of the weights ``(out, neurons)`` that read the layer.
        omega: Factor inside its sine.
    """

    weight: str
    bias: str
    readers: tuple[str, ...]
    omega: float


def sine_layers(layout: Iterable, omegas: Sequence[float]) -> tuple[SineLayer, ...]:
    """The hidden layers of a plain sine network.

    Args:
        layout: Tensors with ``name``, ``shape`` and ``axes``.
        omegas: Factor inside the sine of each hidden layer, the first one first.

    Raises:
        UserError: There are not as many layers with a weight, a bias and readers.
    """
    tensors = list(layout)
    names = list(dict.fromkeys(axis for tensor in tensors for axis in tensor.axes if axis is not None))
    layers = []
    # a permutation with one weight's rows, one bias and the columns of other weights is that of a hidden layer
    for name, omega in zip(names, omegas):
        weights = [t.name for t in tensors if len(t.axes) == 2 and t.axes[0] == name]
        biases = [t.name for t in tensors if t.axes == (name,)]
        readers = tuple(t.name for t in tensors if len(t.axes) == 2 and t.axes[1] == name)
        if (len(weights), len(biases)) == (1, 1) and readers and not set(weights) & set(readers):
            layers.append(SineLayer(weights[0], biases[0], readers, float(omega)))
    if len(layers) != len(names) or len(names) != len(omegas):
        raise UserError(
            f"{len(omegas)} omegas are given for {len(names)} permutations, {len(layers)} of them of sine layers",
            allowed="one omega for each hidden layer of a plain sine network with biases",
            do="give the omegas of the field's hidden layers, or none",
        )
    return tuple(layers)


def canonical_sines(weights: dict[str, Tensor], layers: Sequence[SineLayer]) -> dict[str, Tensor]:
    """The same fields, with every neuron's phase in [-pi/2, pi/2) and the sum of its incoming weights at least zero.

    Args:
        weights: Tensors ``(N, *shape)``.
        layers: Hidden layers, the first one first.

    Returns:
        Weights of the same functions, to rounding; the same for fields that differ by signs and phases alone, where no
        phase or sum lies on the border. Permuted fields stay permuted.
    """
    weights = dict(weights)
    for layer in layers:
        # sign: that of the sum, not of one entry, since in deeper layers the entries move with the neurons before
        sign = torch.where(weights[layer.weight].sum(-1) < 0, -1.0, 1.0).to(weights[layer.weight])
        # phase: half turns that bring it into [-pi/2, pi/2); what reads the neuron follows both
        phase = weights[layer.bias] * sign * layer.omega
        turns = torch.floor(phase / math.pi + 0.5)
        weights[layer.weight] = weights[layer.weight] * sign.unsqueeze(-1)
        weights[layer.bias] = weights[layer.bias] * sign - turns * (math.pi / layer.omega)
        read = sign * (1 - 2 * turns.remainder(2))
        for name in layer.readers:
            weights[name] = weights[name] * read.unsqueeze(-2)
    return weights
