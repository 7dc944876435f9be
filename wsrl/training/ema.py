"""Exponential moving average of a network's parameters, on torch's own ``AveragedModel``."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def exponential_average(model: nn.Module, decay: float) -> AveragedModel:
    """A module that holds a running average of ``model``; call ``update_parameters(model)`` after each step.

    The decay warms up, ``min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that a short run is not an average of
    its first steps. As a submodule it is saved, moved and resumed with its owner; ``.module`` is the averaged network.

    Args:
        model: The network that is trained; copied once.
        decay: Share of the old average that is kept at each update, in [0, 1).
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        count = int(num_averaged)
        weight = 1.0 - min(decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, weight)

    average = AveragedModel(model, multi_avg_fn=update)
    return average.requires_grad_(False)
