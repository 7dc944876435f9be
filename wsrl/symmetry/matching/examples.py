"""Labelled examples in the form that a network takes them.

Letters: N pictures, C channels, H height, W width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.symmetry.matching.barriers import load_weights
from wsrl.symmetry.matching.linear_stack import LinearStack
from wsrl.symmetry.spec.permute import Weights

Examples = tuple[Tensor, Tensor]


def fit_examples(
    network: nn.Module | None, weights: Weights, examples: Mapping[str, Examples]
) -> tuple[nn.Module, dict[str, Examples]]:
    """A network with its weights, and pictures as it takes them: as they are, or flat ``(N, C H W)``.

    Args:
        network: The module; None for a plain stack of linear layers, which the weights then tell.
        weights: Its tensors.
        examples: Pictures ``(N, C, H, W)`` and class numbers ``(N,)`` by split, one of which is ``train``.

    Raises:
        UserError: The network takes neither form, or gives no value for each class.
    """
    network = LinearStack(weights).eval() if network is None else network
    load_weights(network, weights)
    num_classes, reason = 1 + max(int(classes.max()) for _, classes in examples.values()), ""
    for is_flat in (False, True):
        shaped = {split: (x.flatten(1) if is_flat else x, y) for split, (x, y) in examples.items()}
        try:
            with torch.no_grad():
                outputs = network(shaped["train"][0][:2])
        except (RuntimeError, ValueError) as error:  # what torch raises for a shape
            reason = str(error).splitlines()[0]
            continue
        if outputs.ndim == 2 and outputs.shape[1] >= num_classes:
            return network, shaped
        reason = f"it gives {tuple(outputs.shape)} for 2 pictures of {num_classes} classes"
    shape = tuple(examples["train"][0].shape[1:])
    raise UserError(
        f"the network does not take the pictures of --data ({reason})",
        allowed=f"networks from pictures {shape}, or these flattened, to a number for each class",
        do="choose another --data, or a network that fits",
    )
