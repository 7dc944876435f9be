"""A meta-learned start: weights and step sizes from which a few plain gradient steps fit a field.

Letters: N fields, B fields of an outer step, W weights of a field, P points, F features of the encoding, C channels.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.representation import Representation
from wsrl.fitting.fit_config import FitConfig
from wsrl.fitting.loss import SQUARED, PointLoss
from wsrl.options import POSITIVE, at_least, check, option
from wsrl.progress import ShowProgress, silent


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """How a start is learned.

    Attributes:
        inner_steps: Gradient steps that fit a field.
        steps: Steps of Adam on the start and on the inner step sizes, each on other signals.
        batch_size: Signals of such a step.
        learning_rate: Peak rate of Adam for the start.
        inner_rate: Step size of a gradient step that is the same for all weights before any is learned.
        factor_learning_rate: Peak rate of Adam for the factors on it, one for each weight, which begin at one.
        longest: Root mean square over the weights that an inner step moves a field by, at most: the learned step sizes
            are near to where one signal in hundreds blows up, which this keeps from happening.
        interleave: While learning, a step sees one of this many interleaved subsets of the points, in turn.
        seed: Seed of the order of the signals.
    """

    inner_steps: int = option(3, at_least(1))
    steps: int = option(400, at_least(1))
    batch_size: int = option(16, at_least(1))
    learning_rate: float = option(0.01, POSITIVE)
    inner_rate: float = option(10.0, POSITIVE)
    factor_learning_rate: float = option(0.05, POSITIVE)
    longest: float = option(0.1, POSITIVE)
    interleave: int = option(1, at_least(1))
    seed: int = 0

    def __post_init__(self):
        check(self, "meta.")


@dataclass(frozen=True, kw_only=True)
class MetaStart:
    """What was learned.

    Attributes:
        representation: What the weights are.
        start: Weights ``(W,)`` that every field starts from.
        rates: Step size ``(W,)`` of every weight; zero where it is frozen. One may be negative.
        steps: Gradient steps that fit a field.
        longest: Root mean square over the weights that a step moves a field by, at most: a longer one is shortened.
        loss: Of a value.
    """

    representation: Representation
    start: Tensor
    rates: Tensor
    steps: int
    longest: float
    loss: PointLoss = SQUARED

    def fit(self, coords: Tensor, values: Tensor, *, keep_graph: bool = False) -> Tensor:
        """Weights ``(N, W)`` of fields after the gradient steps, each on its own mean loss at all points.

        Args:
            coords: Points ``(P, D)`` of all signals.
            values: Their values ``(N, P, C)``.
            keep_graph: Let the result be differentiated by the start and the step sizes.
        """
        features, unflatten = self.representation.encoding(coords), self.representation.layout.unflatten
        numbers = self.start.expand(len(values), -1)
        for _ in range(self.steps):
            numbers = numbers if keep_graph else numbers.detach().requires_grad_()
            found = self.representation.evaluate_encoded(unflatten(numbers), features).mT
            # The signals are independent: the gradient of the sum of their losses is that of each.
            errors = self.loss(found, values).mean((1, 2)).sum()
            (gradient,) = torch.autograd.grad(errors, numbers, create_graph=keep_graph)
            step = self.rates * gradient
            length = torch.linalg.vector_norm(step, dim=1, keepdim=True) / step.shape[1] ** 0.5  # (N, 1)
            numbers = numbers - step * (self.longest / length.clamp(min=self.longest))
        return numbers if keep_graph else numbers.detach()


def learn_start(
    representation: Representation,
    coords: Tensor,
    values: Tensor,
    config: MetaConfig,
    loss: PointLoss = SQUARED,
    progress: ShowProgress = silent,
) -> MetaStart:
    """Learn a start and step sizes such that the loss after the gradient steps is small on average.

    The gradient goes through the inner steps (second order). The base field of an adapter stays as it is.

    Args:
        representation: What the weights are; its shared start is where learning begins.
        coords: Points ``(P, D)`` of all signals.
        values: Values ``(N, P, C)`` of the signals to learn from.
        config: How.
        loss: Of a value.
        progress: Shows the steps.

    Raises:
        UserError: The start diverges.

    Source: MAML, Finn et al., ICML 2017, with the learned step sizes of Meta-SGD, arXiv 1707.09835, equations 2 and 3;
    for coordinate networks Tancik et al., CVPR 2021. Deviations: a step size is a common one times a learned factor;
    long steps are shortened.
    """
    layout, generator = representation.layout, torch.Generator().manual_seed(config.seed)
    free = layout.trainable().to(values)
    start = layout.flatten(representation.initial()).to(values).requires_grad_()
    factors = torch.ones_like(start).requires_grad_()
    optimizer, schedule = _optimizer(start, factors, config)

    def learned() -> MetaStart:
        how = {"steps": config.inner_steps, "longest": config.longest, "loss": loss}
        rates = config.inner_rate * factors * free
        return MetaStart(representation=representation, start=start, rates=rates, **how)

    with progress("steps of the learned start", config.steps) as shown:
        for step in range(config.steps):
            # Other signals and other points at every step.
            rows = torch.randint(len(values), (config.batch_size,), generator=generator).to(values.device)
            part = slice(step % config.interleave, None, config.interleave)
            points, targets = coords[part], values[rows][:, part]
            # The loss after the inner steps, by what they began with; frozen entries have no gradient.
            error = _loss_after(learned(), points, targets)
            _check_finite(error.item(), step, config)
            optimizer.zero_grad()
            error.backward()
            start.grad.mul_(free)
            optimizer.step()
            schedule.step()
            shown.advance(1)
    with torch.no_grad():
        made = learned()
    return replace(made, start=start.detach())


def _optimizer(
    start: Tensor, factors: Tensor, config: MetaConfig
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    """Adam for the start and the factors on the step sizes; warm-up and half a cosine, as a field's own fit has."""
    rates = ((start, config.learning_rate), (factors, config.factor_learning_rate))
    optimizer = torch.optim.Adam([{"params": [tensor], "lr": rate} for tensor, rate in rates], betas=(0.9, 0.95))
    rate = FitConfig(steps=config.steps, learning_rate=1.0).rate
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _loss_after(start: MetaStart, coords: Tensor, values: Tensor) -> Tensor:
    """Mean loss of signals ``(N, P, C)`` after the inner steps, differentiable by the start and the step sizes."""
    weights = start.representation.layout.unflatten(start.fit(coords, values, keep_graph=True))
    return start.loss(start.representation.evaluate(weights, coords), values).mean()


def _check_finite(error: float, step: int, config: MetaConfig) -> None:
    if not math.isfinite(error):
        raise UserError(
            f"the loss after {config.inner_steps} inner steps is {error} in step {step} of learning a start",
            allowed="rates at which the inner steps stay finite",
            do="lower meta.learning_rate or meta.longest",
        )
