"""What inputs reach of a network: entries of its weights on which the outputs depend."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Run = Callable[[Weights], list[Tensor]]


def unread_entries(
    run: Run, follow: Callable[[Weights], Mapping[str, Tensor | None]], starts: Sequence[Weights]
) -> dict[str, Tensor]:
    """Entries of weights on which the outputs do not depend.

    Their gradients are zero at several weights, so that this is no matter of units that are off; and other values in
    their place change nothing, so that it is none of operations without gradients.

    Args:
        run: From weights to outputs.
        follow: From weights to the gradients of the sum of all squared outputs; None where there is none.
        starts: Weights of two networks or more.

    Returns:
        For each tensor that has such entries, where they are ``shape`` (boolean). Whole numbers are left out: other
        values in their place may mean nothing.
    """
    first, second = starts[:2]
    still: dict[str, Tensor] = {}
    for start in starts:
        for name, gradient in follow(start).items():
            zero = torch.ones_like(start[name], dtype=torch.bool) if gradient is None else gradient == 0
            still[name] = zero & still[name] if name in still else zero
    before, found = run(first), {}
    for name, entries in still.items():
        other = second[name] if not torch.equal(first[name], second[name]) else first[name].flip(0) + 1
        if entries.any() and all(
            map(torch.equal, before, run({**first, name: torch.where(entries, other, first[name])}))
        ):
            found[name] = entries
    return found


def squares(outputs: list[Tensor]) -> Tensor | None:
    """The sum of the squares of all outputs that have gradients; None where none has."""
    parts = [output.abs().square().sum() for output in outputs if output.requires_grad]
    return torch.stack(parts).sum() if parts else None
