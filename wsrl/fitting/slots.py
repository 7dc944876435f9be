"""Slots: the fields that are being fitted at one time, each at its own step, and freed as soon as it is done.

Letters: B slots, W numbers of a field, P points, F features of the encoding, C channels, K interleaved subsets.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wsrl.fields.representation import Representation
from wsrl.fitting.draws import Draws
from wsrl.fitting.fit_config import FitConfig
from wsrl.fitting.gradient import make_gradient
from wsrl.fitting.loss import SQUARED, PointLoss

BETA1, EPSILON = 0.9, 1e-8
# Steps between two looks at the losses. A look waits for the device: that costs nothing on a CPU, a stall on a GPU. The
# results do not depend on it: a field that has met its stopping rule stands still until the next look.
LOOK_EVERY = {"cpu": 1, "cuda": 16}


def num_subsets(config: FitConfig, num_points: int, shared: bool) -> int:
    """Number of subsets that a fit deals the points into; each step sees one of them.

    Args:
        config: How to fit.
        num_points: Points of a signal.
        shared: Whether all fields have the same points; a number of points a step is for those that have their own.
    """
    if shared or config.points_per_step is None:
        return config.interleave
    return math.ceil(num_points / config.points_per_step)


def interleaved(grid: tuple[int, ...] | None, num_points: int, subsets: int) -> list[Tensor]:
    """Indices of the points of each subset.

    Points of a grid are dealt out along a rank-one lattice, so that each subset covers the grid evenly (a checkerboard
    for two); others by their position in the list.

    Args:
        grid: Shape of the regular grid that the points form in row-major order, or None.
        num_points: Number of points.
        subsets: Number of subsets.
    """
    subsets = min(subsets, num_points)
    step = max(1, round(subsets * 0.618))
    key = torch.zeros(1, dtype=torch.long)
    for axis in grid or (num_points,):
        key = (key[:, None] * step + torch.arange(axis)).flatten() % subsets if grid else torch.arange(axis) % subsets
    parts = [(key == part).nonzero().flatten() for part in range(subsets)]
    return [part for part in parts if len(part)]


class Part(NamedTuple):
    """Points that a step sees, with their values and weights.

    Attributes:
        indices: Places ``(P',)`` of the points in the list of all.
        points: As the gradient prepared them, of all fields or with a first axis of B slots.
        targets: Values ``(B, P', C)``.
        weights: Weights ``(B, P')`` in the loss, or None.
    """

    indices: Tensor
    points: Tensor
    targets: Tensor
    weights: Tensor | None


# A field whose loss is so many times its least one has left the region where its steps make sense: it goes back to
# where the loss was least, with half the step size, at most so often. Other fields are not touched.
BLOWN_UP, MOST_RETURNS = 10.0, 6
# Steps over which the losses of drawn subsets are averaged, at most: the fewer, the sooner a field is seen to be done.
MOST_PERIOD = 8


@dataclass(frozen=True)
class Done:
    """A field that left its slot.

    Attributes:
        tag: What :meth:`Slots.put` was given.
        numbers: Its numbers ``(W,)``, on the CPU.
        values: Its values ``(P, C)``, on the CPU.
        steps: Steps that it took.
    """

    tag: object
    numbers: Tensor
    values: Tensor
    steps: int


class Slots:
    """Fields that are fitted together by Adam; they share nothing but the loop.

    The fields stand in the first slots; one that is done makes room for the last of them.

    Args:
        representation: What the numbers are, on the device where to compute.
        config: How to fit.
        num: Number of slots.
        coords: Points ``(P, D)`` of all fields, or of the first one where each has its own.
        grid: Grid of the points, or None.
        shared: Whether all fields have the same points.
        weighted: Whether the points have weights.
        loss: Of a value.
        prior_widths: Widths ``(W,)`` of the prior; None for ones.
        device: Where to compute.
    """

    def __init__(
        self,
        representation: Representation,
        config: FitConfig,
        num: int,
        *,
        coords: Tensor,
        grid: tuple[int, ...] | None = None,
        shared: bool = True,
        weighted: bool = False,
        loss: PointLoss = SQUARED,
        prior_widths: Tensor | None = None,
        device: torch.device | str = "cpu",
    ):
        self.representation, self.config, self.size = representation, config, num
        self.device, self.shared, self.weighted, self.loss = torch.device(device), shared, weighted, loss
        self.coords, self.grid, self.num_points = coords, grid, len(coords)
        self.gradient = make_gradient(representation, device, config.gradient, config.precision, loss)
        subsets = interleaved(grid, len(coords), num_subsets(config, len(coords), shared))
        self._period = len(subsets)
        self._tags: list[object] = []
        self._begun: list[int] = []  # of each field, the step count of the slots when it came
        self._draws = None
        if config.interleave_by == "error" and len(subsets) > 1:
            self._draws = Draws(num, len(coords), len(subsets), grid, self.device)
            self._period = math.gcd(len(subsets), MOST_PERIOD)
            subsets = []
        self._look_every = -(-LOOK_EVERY.get(self.device.type, 16) // self._period) * self._period
        self._parts = [self._part(subset.to(self.device)) for subset in subsets]
        # What the values of a finished field are measured on.
        self._whole = self._parts
        if shared and len(subsets) != 1:
            self._whole = [self._part(torch.arange(len(coords), device=self.device))]
        self._allocate()
        self._tabulate()
        self._pull = self._strengths(prior_widths)

    def _part(self, indices: Tensor) -> Part:
        """Room for these points of every field."""
        empty = {"device": self.device, "dtype": torch.float32}
        points = self._encode(self.coords.to(self.device)[indices])
        if not self.shared:
            points = points.expand(self.size, *points.shape).clone()
        targets = torch.zeros(self.size, len(indices), self.representation.out_features, **empty)
        weights = torch.ones(self.size, len(indices), **empty) if self.weighted else None
        return Part(indices, points, targets, weights)

    def _allocate(self) -> None:
        num = self.size
        empty = {"device": self.device, "dtype": torch.float32}
        width = self.representation.layout.num_weights
        self._numbers, self._mean, self._square = (torch.zeros(num, width, **empty) for _ in range(3))
        # Where the prior pulls a field to: only its gradient needs it.
        self._start = torch.zeros(num, width if self.config.prior_strength else 0, **empty)
        self._steps = torch.zeros(num, dtype=torch.long, device=self.device)
        self._moving = torch.zeros(num, 1, **empty)  # 1 until a field meets its stopping rule
        self._threshold, self._error = torch.zeros(num, **empty), torch.zeros(num, **empty)
        # Where each field was when its current turn of all subsets began, and where its loss over a turn was least.
        self._begin, self._best = (torch.zeros(num, width, **empty) for _ in range(2))
        self._least = torch.full((num,), torch.inf, **empty)
        self._returns = torch.zeros(num, 1, **empty)
        self._taken = 0  # steps since the slots were last empty

    def _encode(self, coords: Tensor) -> Tensor:
        return self.gradient.prepare(self.representation.encoding(coords))

    def _tabulate(self) -> None:
        """Adam's step size and the correction of its second moment by step, so that every slot can look up its own."""
        config, steps = self.config, range(self.config.steps)
        sizes = [config.rate(step) / (1 - BETA1 ** (step + 1)) for step in steps]
        scales = [(1 - config.beta2 ** (step + 1)) ** -0.5 for step in steps]
        self._rates = torch.tensor([sizes, scales], dtype=torch.float32, device=self.device)  # (2, steps)
        layout = self.representation.layout
        frozen = any(spec.frozen is not None for spec in layout)
        self._trainable = layout.trainable().to(self.device, torch.float32) if frozen else None

    def _strengths(self, widths: Tensor | None) -> Tensor | float:
        """Slope of the penalty in each weight ``(W,)``, or in all, per unit of its distance from the start."""
        strength = self.config.prior_strength
        return strength if widths is None else strength / widths.to(self.device).square()

    def __len__(self) -> int:
        return len(self._tags)

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self) == self.size

    def put(
        self,
        tag: object,
        start: Tensor,
        values: Tensor,
        peak: float,
        coords: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Give a free slot to a field.

        Args:
            tag: Comes back with the result.
            start: Numbers ``(W,)`` to start from.
            values: Targets ``(P, C)``.
            peak: Width of the range of values, which a PSNR refers to.
            coords: Points ``(P, D)``, where the fields do not share them.
            weights: Weights ``(P,)`` of the points, where they have some.
        """
        slot = len(self._tags)
        self._tags.append(tag)
        self._numbers[slot] = start.to(self.device)
        if self.config.prior_strength:
            self._start[slot] = self._numbers[slot]
        for tensor in (self._mean, self._square, self._steps, self._error, self._returns):
            tensor[slot] = 0
        self._least[slot] = torch.inf
        self._moving[slot] = 1
        goal = self.config.target_psnr
        # Stricter by more than the rounding of a logarithm, so that the PSNR that is stored is not below the goal.
        self._threshold[slot] = -1.0 if goal is None else peak**2 * 10 ** (-goal / 10) * (1 - 1e-6)
        self._taken = self._taken if slot else 0
        self._begun.append(self._taken)
        given = [None if tensor is None else tensor.to(self.device) for tensor in (coords, values, weights)]
        for part in self._all_parts():
            points, values, weights = (None if tensor is None else tensor[part.indices] for tensor in given)
            part.targets[slot] = values
            if points is not None:
                part.points[slot] = self._encode(points)
            if weights is not None:
                part.weights[slot] = weights
        if self._draws is not None:
            self._draws.begin(slot, given[2])

    def _all_parts(self) -> list[Part]:
        return self._parts if self._whole is self._parts else [*self._parts, *self._whole]

    def _of_fields(self, tensor: Tensor) -> Tensor:
        return tensor[: len(self)]

    def advance(self) -> list[Done]:
        """Take steps until the next look at the losses.

        Returns:
            The fields that are done, in the order of their slots.
        """
        longest = self.config.steps + max(self._begun) - self._taken
        # A field that stood still although it was not done, between two looks, has steps left when all should be done.
        for step in range(min(self._look_every, longest) if longest > 0 else self._look_every):
            all_see_subsets = self.config.interleave_share == 1 or self._taken < self.config.interleaved_steps
            num_parts = self._period if all_see_subsets else len(self._whole)
            self._step(step % num_parts, num_parts, subsets=all_see_subsets)
            self._taken += 1
        return self._collect()

    def _gradients(self, number: int, numbers: Tensor, *, subsets: bool) -> tuple[Tensor, Tensor]:
        """Losses ``(B,)`` and gradients ``(B, W)`` of all fields on one of the parts of their points."""
        is_drawn = subsets and self._draws is not None
        part = self._parts[number] if subsets and not is_drawn else self._whole[0 if is_drawn else number]
        points = part.points if self.shared else self._of_fields(part.points)
        weights = self._of_fields(part.weights) if self.weighted else None
        drawn = None
        if is_drawn:
            if number == 0:
                self._draw_again()
            drawn, weights = self._draws.of(self._of_fields(self._steps))
        return self.gradient(numbers, points, self._of_fields(part.targets), weights, drawn)

    def _draw_again(self) -> None:
        """Draw the points of the fields that have taken 1, 2, 4, 8, ... turns by their errors."""
        steps = self._of_fields(self._steps)
        turns = steps // self._draws.num_subsets
        due = (turns > 0) & (turns & (turns - 1) == 0) & (steps % self._draws.num_subsets == 0)
        slots = due.nonzero().flatten()
        if not len(slots):
            return
        (part,) = self._whole
        found, targets = self.gradient.values(self._numbers[slots], part.points), part.targets[slots]
        errors = sum(self.loss.slope(found, targets).square().unbind(-1)).sqrt()  # (B', P)
        self._draws.again(slots, errors, part.weights[slots] if self.weighted else None)

    @torch.no_grad()
    def _step(self, number: int, num_parts: int, *, subsets: bool) -> None:
        """One step of Adam for every field, on one of the parts of its points."""
        numbers, mean, square = map(self._of_fields, (self._numbers, self._mean, self._square))
        moving, steps, error = map(self._of_fields, (self._moving, self._steps, self._error))
        losses, gradients = self._gradients(number, numbers, subsets=subsets)
        if self.config.prior_strength:
            gradients.add_((numbers - self._of_fields(self._start)) * self._pull)
        if self._trainable is not None:
            gradients.mul_(self._trainable)  # Adam leaves an entry whose gradient is always zero where it is
        size, scale = self._rates[:, steps.clamp(max=self.config.steps - 1)].unsqueeze(-1)  # (B, 1) each
        mean.lerp_(gradients, (1 - BETA1) * moving)
        square.lerp_(gradients.square_(), (1 - self.config.beta2) * moving)
        if number == 0:
            self._of_fields(self._begin).copy_(numbers)
        size = size * moving * 0.5 ** self._of_fields(self._returns)
        numbers.sub_(mean / (square.sqrt() * scale).add_(EPSILON) * size)
        steps.add_(moving[:, 0].long())
        error.mul_(number > 0).add_(losses / num_parts)
        if number == num_parts - 1:
            self._return_blown_up()
        rests = steps >= self.config.steps
        # Where the last steps see all points, the fields stay in step: none leaves early to make room for another.
        if number == num_parts - 1 and self.config.interleave_share == 1:
            rests |= (error <= self._of_fields(self._threshold)) | ~error.isfinite()
        moving.masked_fill_(rests[:, None], 0.0)

    def _return_blown_up(self) -> None:
        """After a turn of all subsets: note where each field was best, and put those back there that have blown up."""
        numbers, begin, best, mean, square = map(
            self._of_fields, (self._numbers, self._begin, self._best, self._mean, self._square)
        )
        error, least, returns = map(self._of_fields, (self._error, self._least, self._returns))
        moves = self._of_fields(self._moving)[:, 0] > 0  # what one that stands still shows is no news
        better = (error < least) & moves
        best.copy_(torch.where(better[:, None], begin, best))
        least.copy_(torch.where(better, error, least))
        blown_up = ~(error <= BLOWN_UP * least) & least.isfinite() & (returns[:, 0] < MOST_RETURNS) & moves
        if self.device.type == "cpu" and not blown_up.any():  # elsewhere asking would wait for the device
            return
        # Steps that end in no number at all are too large by orders: one return, with the smallest of step sizes.
        used_up = blown_up & ~error.isfinite()
        numbers.copy_(torch.where(blown_up[:, None], best, numbers))
        error.copy_(torch.where(blown_up, least, error))
        for moment in (mean, square):
            moment.copy_(torch.where(blown_up[:, None], 0.0, moment))
        returns.add_(blown_up[:, None]).masked_fill_(used_up[:, None], MOST_RETURNS)

    def _collect(self) -> list[Done]:
        """Take out the fields that rest, if all points together agree; otherwise they go on."""
        resting = (self._of_fields(self._moving)[:, 0] == 0).nonzero().flatten()
        if not len(resting):
            return []
        numbers, steps = self._numbers[resting], self._steps[resting]
        values, errors = self._measure(resting, numbers)
        finished = (errors <= self._threshold[resting]) | (steps >= self.config.steps) | ~errors.isfinite()
        self._moving[resting] = (~finished).to(self._moving)[:, None]
        kept = finished.nonzero().flatten()
        places, numbers, values, steps = (t[kept].cpu() for t in (resting, numbers, values, steps))
        done = [
            Done(self._tags[slot], *found) for slot, *found in zip(places.tolist(), numbers, values, steps.tolist())
        ]
        for slot in reversed(places.tolist()):
            self._remove(slot)
        return done

    def _measure(self, slots: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(B', P, C)`` of the fields in some slots at all their points, and their mean losses ``(B',)``."""
        values = torch.empty(len(slots), self.num_points, self.representation.out_features, device=self.device)
        errors = torch.zeros(len(slots), device=self.device)
        for part in self._whole:
            found = self.gradient.values(numbers, part.points if self.shared else part.points[slots])
            values[:, part.indices] = found
            losses = self.loss(found, part.targets[slots])
            if self.weighted:
                losses = losses * part.weights[slots].unsqueeze(-1)
            errors += losses.mean((1, 2)) * (len(part.indices) / self.num_points)
        return values, errors

    def _remove(self, slot: int) -> None:
        """Move the last field to a slot that is free again."""
        last = len(self._tags) - 1
        for kept in (self._tags, self._begun):
            kept[slot] = kept[last]
            kept.pop()
        if slot == last:
            return
        state = (self._numbers, self._start, self._mean, self._square, self._steps)
        state += (self._moving, self._threshold, self._error, self._begin, self._best, self._least, self._returns)
        own = [tensor for part in self._all_parts() for tensor in (part.targets, part.weights)]
        own += [] if self.shared else [part.points for part in self._all_parts()]
        own += [] if self._draws is None else [self._draws.places, self._draws.weights]
        for tensor in (*state, *own):
            if tensor is not None:
                tensor[slot] = tensor[last]
