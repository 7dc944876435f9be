"""The straight path between two networks: losses along it, and the barrier in its way.

Letters: P points of the path, N examples.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsrl.errors import UserError
from wsrl.symmetry.spec.permute import Weights

NUM_POINTS = 25
LEAST_POINTS = 3
EXAMPLES_AT_ONCE = 1000


def interpolate(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    """The network at ``t`` of the straight path from ``a`` (0) to ``b`` (1): linear interpolation of the weights.

    Tensors of whole numbers, such as counters, are those of ``a``.
    """
    return {
        name: torch.lerp(tensor, b[name], t) if tensor.is_floating_point() or tensor.is_complex() else tensor
        for name, tensor in a.items()
    }


def path_grid(num_points: int) -> np.ndarray:
    """Equally spaced places from 0 to 1, ``(P,)``.

    Raises:
        UserError: There are fewer than three.
    """
    if num_points < LEAST_POINTS:
        raise UserError(f"a path of {num_points} points has no inside", allowed=f"{LEAST_POINTS} points or more")
    return np.linspace(0, 1, num_points)


def path_losses(
    loss: Callable[[dict[str, Tensor]], float], a: Weights, b: Weights, num_points: int = NUM_POINTS
) -> np.ndarray:
    """What a function of the weights gives at equally spaced points of the path, ends included, ``(P, ...)``.

    Args:
        loss: From weights to a number, or to several.
        a: Where the path begins.
        b: Where it ends.
        num_points: Number of points.
    """
    return np.array([_plain(loss(interpolate(a, b, float(t)))) for t in path_grid(num_points)])


def _plain(value):
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def barrier(losses: Sequence[float]) -> float:
    """The most by which losses at equally spaced points exceed the straight line between those at the ends.

    Zero where they never do; of one unit with the losses.
    """
    losses = np.asarray(losses, dtype=float)
    t = path_grid(len(losses))
    return float((losses - ((1 - t) * losses[0] + t * losses[-1]))[1:-1].max(initial=0.0))


class NetworkScores:
    """Loss and accuracy of a module under given weights; running statistics are estimated anew for each of them.

    Args:
        module: The module; a copy of it is used, in evaluation mode.
        inputs: Examples ``(N, ...)``.
        targets: Classes ``(N,)``, or what ``loss`` takes.
        loss: From outputs and targets to a mean over examples; cross entropy (nats) if None.
        calibration: Examples on which running statistics are estimated; ``inputs`` if None.
        at_once: Examples of a batch.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        calibration: Tensor | None = None,
        at_once: int = EXAMPLES_AT_ONCE,
    ):
        self.module = copy.deepcopy(module).eval()
        self.inputs, self.targets, self.at_once = inputs, targets, at_once
        self.loss = functional.cross_entropy if loss is None else loss
        self.calibration = inputs if calibration is None else calibration

    @torch.no_grad()
    def __call__(self, weights: Weights) -> tuple[float, float]:
        """Mean loss, and the share of examples whose largest output is their class (nan where there are no classes)."""
        load_weights(self.module, weights)
        estimate_statistics(self.module, self.calibration.split(self.at_once))
        total, hits = 0.0, 0.0
        for inputs, targets in zip(self.inputs.split(self.at_once), self.targets.split(self.at_once)):
            outputs = self.module(inputs)
            total += float(self.loss(outputs, targets)) * len(inputs)
            classes = targets.ndim == 1 and not targets.is_floating_point() and outputs.ndim == 2
            hits += float((outputs.argmax(1) == targets).sum()) if classes else float("nan")
        return total / len(self.inputs), hits / len(self.inputs)


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Put weights into a module; buffers that they leave out stay as they are.

    Raises:
        UserError: The module has other tensors.
    """
    try:
        lost, unknown = module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:  # a shape
        text = str(error).splitlines()[-1].strip()
        raise UserError(
            f"the weights don't fit into the module: {text}",
            allowed="weights of this module",
            do="pass the module they belong to",
        ) from error
    parameters = dict(module.named_parameters(remove_duplicate=False))
    loaded = {id(parameters[name]) for name in weights if name in parameters}  # of tied ones any name will do
    wrong = [
        f"the weights have no {name!r}" for name in lost if name in parameters and id(parameters[name]) not in loaded
    ]
    wrong += [f"the module has no tensor {name!r}" for name in unknown]
    if wrong:
        raise UserError(wrong[0], allowed="tensors of one module under its names", do="pass the module they belong to")


def running_parts(module: nn.Module) -> list[nn.Module]:
    """Normalisations with running statistics: batch norms that track them."""
    kind = nn.modules.batchnorm._BatchNorm
    return [part for part in module.modules() if isinstance(part, kind) and part.track_running_stats]


@torch.no_grad()
def estimate_statistics(module: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace the running statistics of a module by means over batches; one without any stays as it is.

    Between two networks the statistics of neither hold: the variance of a mean of channels is smaller than both.

    Source: Jordan et al., REPAIR, arXiv 2211.08403, section 3.1.
    """
    parts = running_parts(module)
    if not parts:
        return
    before = [(part, part.training, part.momentum) for part in parts]
    for part in parts:
        part.reset_running_stats()
        part.momentum = None  # a plain mean over the batches
        part.train()
    for batch in batches:
        module(batch)
    for part, was_training, momentum in before:
        part.train(was_training)
        part.momentum = momentum
