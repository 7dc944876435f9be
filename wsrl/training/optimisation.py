"""What all trainings share: the step size over a run, and the moving average of a network's parameters."""

import math

import torch
from diffusers.optimization import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel


def warmup_cosine(optimizer: Optimizer, warmup_steps: float, total_steps: float) -> LambdaLR:
    """The step size of every training: a line from zero up to the rates of the optimiser, then half a cosine to zero.

    Args:
        optimizer: Its rates are the peaks.
        warmup_steps: Steps of the rise, rounded down; with none the first step is taken at the peak.
        total_steps: Steps of the run; infinite where it has no end, and then the size stays at its peak.
    """
    if math.isinf(total_steps):
        return get_constant_schedule_with_warmup(optimizer, int(warmup_steps))
    return get_cosine_schedule_with_warmup(optimizer, int(warmup_steps), int(total_steps))


def scheduled(optimizer: Optimizer, warmup_steps: float, total_steps: float) -> dict:
    """An optimiser under :func:`warmup_cosine`, as ``configure_optimizers`` of a LightningModule returns it."""
    schedule = warmup_cosine(optimizer, warmup_steps, total_steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


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
