"""How many fields to fit together: known for CPUs, measured once, at the start of a build, for other devices."""

import time
from collections.abc import Callable

import torch

from wsrl.fields.representation import Representation
from wsrl.fitting.fit_config import FitConfig
from wsrl.fitting.gradient import choose_method
from wsrl.fitting.slots import Slots

KERNEL_SIZE, AUTOGRAD_SIZE = 64, 16
# Of fields that each have their own encoded points, which take memory.
POINTS_AT_ONCE = 2**14
SMALLEST, LARGEST = 8, 4096
LEAST_GAIN = 1.03
TRIALS = 5


def usual_size(config: FitConfig, device: torch.device | str, own_points: int | None = None) -> int | None:
    """Number of slots for a CPU, or None for a device on which it has to be measured.

    The kernel keeps each field in the cache of its own core: some more fields only share out what a step costs the
    interpreter. Autograd leaves the cache with more than a few, and its rounding depends on their number, so that a
    measured one would make two runs of one command differ.

    Args:
        config: How the fields are fitted.
        device: Where the fields are fitted.
        own_points: Points of a field where each has its own; None where they share them.
    """
    if torch.device(device).type != "cpu":
        return None
    if choose_method(config.gradient, device, config.precision) != "kernel":
        return AUTOGRAD_SIZE
    size = KERNEL_SIZE
    if own_points is not None:
        size = min(size, POINTS_AT_ONCE // min(own_points, config.points_per_step or own_points))
    return max(size, 4 * torch.get_num_threads())


def suitable_size(make_slots: Callable[[int], Slots], representation: Representation) -> int:
    """Double the number of slots until that hardly gains throughput, or memory runs out.

    The size changes the speed of a build alone, so that a measured one does no harm to its reproducibility.

    Args:
        make_slots: Makes slots of a given number.
        representation: What their numbers are.
    """
    rates: dict[int, float] = {}
    size, best = SMALLEST, SMALLEST
    while size <= min(LARGEST, 4 * best):  # one size that gains nothing may be noise, two are not
        try:
            rates[size] = _rate(make_slots(size), representation)
        except (torch.OutOfMemoryError, MemoryError):
            break
        best = size if rates[size] > LEAST_GAIN * rates.get(best, 0.0) or size == SMALLEST else best
        size *= 2
    return best


def _rate(slots: Slots, representation: Representation) -> float:
    """Fields and looks per second of full slots; the best of a few trials, since others may use the machine."""
    # every slot holds a field at its start, with the target zero
    start = representation.layout.flatten(representation.initial())
    values = torch.zeros(slots.num_points, representation.out_features)
    for number in range(slots.size):
        slots.put(number, start, values, 1.0, None)
    # the shortest time of one advance of all of them
    elapsed = []
    for _ in range(TRIALS + 1):  # the first one warms up
        began = time.perf_counter()
        slots.advance()
        if slots.device.type == "cuda":
            torch.cuda.synchronize(slots.device)
        elapsed.append(time.perf_counter() - began)
    return slots.size / min(elapsed[1:])
