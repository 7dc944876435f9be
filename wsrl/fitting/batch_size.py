"""How many fields to fit together: measured once, at the start of a build."""

import time
from collections.abc import Callable

import torch

from wsrl.fields.representation import Representation
from wsrl.fitting.slots import Slots

SMALLEST, LARGEST = 8, 4096
LEAST_GAIN = 1.05
TRIALS = 3


def suitable_size(make_slots: Callable[[int], Slots], representation: Representation) -> int:
    """Double the number of slots until that gains less than a twentieth in throughput, or memory runs out.

    The size changes the speed of a build alone, so that a measured one does no harm to its reproducibility.

    Args:
        make_slots: Makes slots of a given number.
        representation: What their numbers are.
    """
    best_size, best_rate, size = SMALLEST, 0.0, SMALLEST
    while size <= LARGEST:
        try:
            rate = _rate(make_slots(size), representation)
        except (torch.OutOfMemoryError, MemoryError):
            break
        if rate < LEAST_GAIN * best_rate:
            break
        best_size, best_rate, size = size, rate, 2 * size
    return best_size


def _rate(slots: Slots, representation: Representation) -> float:
    """Fields and looks per second of full slots; the best of a few trials, since others may use the machine."""
    start = representation.layout.flatten(representation.initial())
    values = torch.zeros(slots.num_points, representation.out_features)
    for number in range(slots.size):
        slots.put(number, start, values, 1.0, None)
    elapsed = []
    for _ in range(TRIALS + 1):  # the first one warms up
        began = time.perf_counter()
        slots.advance()
        if slots.device.type == "cuda":
            torch.cuda.synchronize(slots.device)
        elapsed.append(time.perf_counter() - began)
    return slots.size / min(elapsed[1:])
