"""How every field is fitted."""

import math
from dataclasses import dataclass

from wsrl.errors import UserError
from wsrl.fitting.gradient import METHODS, PRECISIONS
from wsrl.options import POSITIVE, SHARE, Allowed, at_least, check, one_of, option

PRIOR_SCALES = ("start", "data")
INTERLEAVED_BY = ("place", "error")
SCHEDULES = ("cosine", "hyperbolic", "constant")
# What changes the speed alone, so that a build may go on with another value.
SPEED_KEYS = ("batch_size",)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How every field is fitted.

    Attributes:
        steps: Adam steps at most.
        learning_rate: Step size after the warm-up.
        warmup: Share of the steps over which the step size rises linearly.
        schedule: What follows the warm-up: ``cosine`` to zero at the last step; ``hyperbolic``: constant, then falling
            as one over the step, for fields that stop by themselves; or ``constant``.
        decay_after: Step from which the hyperbolic schedule falls.
        beta2: Decay of Adam's second moment.
        prior_strength: Strength s of a normal prior about the field's start: ``s/2`` times the squared distance of its
            weights from the start is added to its mean loss; 0 is none. Weights about which the signal says nothing
            stay where they began, so that longer fits remain a smooth function of the signal.
        prior_scale: Widths of the prior: ``start``, one for all weights; ``data``, those of a first pass without a
            prior over some of the signals, scaled to a mean square of one.
        points_per_step: Points that each step sees of a signal whose points form no grid: dealt out to the steps in an
            order that the field's own seed decides, all of them before any comes again; None takes all.
        interleave: Each step sees one of this many interleaved subsets of the points, in turn; 1 sees all of them.
        interleave_by: ``place``: the subsets are spread evenly and stay the same; ``error``: each has as many points,
            drawn in proportion to the field's error there and weighted so that their gradient is that of all points
            on average. Errors are looked at after 1, 2, 4, 8, ... turns of all subsets.
        interleave_share: Share of the steps, from the first one, that see subsets; the rest sees all points. Less than
            1 only where all fields take the same number of steps, that is, without ``target_psnr``.
        target_psnr: Stop a field once all its points together are this close, in dB; None takes all steps.
        batch_size: Fields that are fitted together; None takes what suits the device. It changes the speed, not the
            result (beyond rounding).
        gradient: ``kernel`` (C++, CPU), ``autograd`` (torch, any device), or ``auto``.
        precision: Of torch's matrix products: ``float32``, ``tf32`` or ``bfloat16``.
        seed: Seed from which, with its id, each field's own seed is made.
    """

    steps: int = option(300, at_least(1))
    learning_rate: float = option(0.05, POSITIVE)
    warmup: float = option(0.05, SHARE)
    schedule: str = option("cosine", one_of(*SCHEDULES))
    decay_after: int = option(40, at_least(1))
    beta2: float = option(0.999, Allowed("between 0 and 1", lambda decay: 0 < decay < 1))
    prior_strength: float = option(0.0, at_least(0))
    prior_scale: str = option("start", one_of(*PRIOR_SCALES))
    points_per_step: int | None = option(None, at_least(1))
    interleave: int = option(1, at_least(1))
    interleave_by: str = option("place", one_of(*INTERLEAVED_BY))
    interleave_share: float = 1.0
    target_psnr: float | None = None
    batch_size: int | None = option(None, at_least(1))
    gradient: str = option("auto", one_of(*METHODS))
    precision: str = option("float32", one_of(*PRECISIONS))
    seed: int = 0

    def __post_init__(self):
        check(self, "fit.")
        if not (self.interleave_share == 1 or (0 <= self.interleave_share < 1 and self.target_psnr is None)):
            raise UserError(
                f"fit.interleave_share is {self.interleave_share} and fit.target_psnr is {self.target_psnr}",
                allowed="a share in [0, 1]; 1 with a target",
                do="mend one of them",
            )

    @property
    def interleaved_steps(self) -> int:
        """Number of steps that see subsets of the points: whole turns of all subsets."""
        return round(self.interleave_share * self.steps) // self.interleave * self.interleave

    def rate(self, step: int) -> float:
        """Step size at ``step``, counted from zero."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        if self.schedule != "cosine":
            return self.learning_rate * (
                min(1.0, self.decay_after / (step + 1)) if self.schedule == "hyperbolic" else 1.0
            )
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
