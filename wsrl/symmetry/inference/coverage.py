"""What inputs reach of a network: entries of its weights on which the outputs depend."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

DRAWINGS = 8
"""Weights at which gradients are looked at, while some are zero at all before."""
Weights = Mapping[str, Tensor]
Run = Callable[[Weights], list[Tensor]]


def unread_entries(
    run: Run, follow: Callable[[Weights], Mapping[str, Tensor | None]], start: Weights, draw: Callable[[], Weights]
) -> dict[str, Tensor]:
    """Entries of weights on which the outputs do not depend.

    Their gradients are zero at all of several weights, so that this is no matter of units that are off by chance; and
    other values in their place change nothing, so that it is none of operations without gradients.

    Args:
        run: From weights to outputs.
        follow: From weights to the gradients of the sum of all squared outputs; None where there is none.
        start: Weights.
        draw: Gives others. What stays the same in them is left out, such as masks and whole numbers.

    Returns:
        For each tensor that has such entries, where they are ``shape`` (boolean).
    """
    other, still = draw(), {}
    for number in range(DRAWINGS):
        weights = (start, other)[number] if number < 2 else draw()
        for name, gradient in follow(weights).items():
            zero = torch.ones_like(start[name], dtype=torch.bool) if gradient is None else gradient == 0
            still[name] = still[name] & zero if name in still else zero
        if not any(entries.any() for entries in still.values()):
            return {}
    before, found = run(start), {}
    for name, entries in still.items():
        if entries.any() and not torch.equal(start[name], other[name]):
            after = run({**start, name: torch.where(entries, other[name], start[name])})
            if all(map(torch.equal, before, after)):
                found[name] = entries
    return found


def squares(outputs: list[Tensor]) -> Tensor | None:
    """The sum of the squares of all outputs that have gradients; None where none has."""
    parts = [output.abs().square().sum() for output in outputs if output.requires_grad]
    return torch.stack(parts).sum() if parts else None
