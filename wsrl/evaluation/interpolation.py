"""How far fields are from others as signals, and the error along an interpolation between two fields.

Letters: N fields, M others, P points, C channels, S steps of an interpolation.
"""

import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.signals.signal import grid_coords

CELLS = {1: 1024, 2: 64, 3: 32}
"""Cells of a side of the grid that fields are compared on where the data have none."""


def signal_values(decoder: FieldDecoder, weights: dict[str, Tensor]) -> Tensor:
    """What fields ``(N, *shape)`` are compared by.

    Returns:
        Pictures as values from 0 to 1 on the grid of the data, shapes as 1 inside and 0 outside on a regular grid,
        ``(N, P * C)``, on the CPU.
    """
    form = decoder.form
    grid = (CELLS[form.in_features],) * form.in_features if form.is_shape or form.grid is None else form.grid
    device = next(iter(weights.values())).device
    values = decoder.decode(weights, grid_coords(grid).to(device)).flatten(1).cpu()
    if form.is_shape:
        return (values < 0).float()
    low, high = form.value_range
    return ((values - low) / (high - low)).clamp(0, 1)


def signal_distances(first: Tensor, second: Tensor, *, shapes: bool) -> Tensor:
    """Distances ``(N, M)`` between all fields of two sets.

    Args:
        first: Values ``(N, P * C)`` of :func:`signal_values`.
        second: Values ``(M, P * C)``.
        shapes: Whether they are of shapes.

    Returns:
        Mean squared error of pictures; of shapes, one minus intersection over union of their insides.
    """
    if not shapes:
        return torch.stack([(second - values).square().mean(dim=1) for values in first])
    both = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None] - both
    return torch.where(union > 0, 1 - both / union.clamp_min(1), 0.0)


def interpolation_scores(between: Tensor, ends: Tensor, others: Tensor, *, shapes: bool) -> dict:
    """The error along an interpolation from one field to another.

    The loss of a step is its mean distance to the two ends. Were it that of the ends at every step, the fields would
    be connected in the sense of linear mode connectivity; the barrier is by how much the largest loss exceeds that. The
    distance to the nearest other field says whether a step is still a signal of the kind.

    Args:
        between: Values ``(S, P * C)`` of the steps, see :func:`signal_values`.
        ends: Values ``(2, P * C)`` of the two fields.
        others: Values ``(M, P * C)`` of other fields of the store.
        shapes: Whether they are of shapes.

    Returns:
        Lists over the steps (``share``, ``to_first``, ``to_second``, ``loss``, ``loss_of_ends``, and ``to_nearest``
        where there are others), and ``mean_loss``, ``mean_loss_of_ends``, ``barrier``, ``mean_to_nearest``,
        ``mean_to_nearest_of_ends``, and ``error_of_ends``, the distance of the first and last step to the ends.

    Source: Frankle et al., arXiv 1912.05671, section 2.
    """
    # The loss of a step, and that of the ends, which a connected path would not exceed.
    share = torch.linspace(0, 1, len(between))
    to_first, to_second = signal_distances(between, ends, shapes=shapes).T
    loss = (to_first + to_second) / 2
    whole = signal_distances(ends[:1], ends[1:], shapes=shapes)[0, 0]
    chord = (whole / 2).expand(len(between))
    steps = {"share": share, "to_first": to_first, "to_second": to_second, "loss": loss, "loss_of_ends": chord}
    scores = {
        "mean_loss": float(loss.mean()),
        "mean_loss_of_ends": float(chord.mean()),
        "barrier": float((loss - chord).max()),
        "error_of_ends": [float(to_first[0]), float(to_second[-1])],
    }
    # How near the steps are to other signals, beside how near the ends are.
    if len(others):
        steps["to_nearest"] = signal_distances(between, others, shapes=shapes).min(dim=1).values
        of_ends = signal_distances(ends, others, shapes=shapes).min(dim=1).values
        scores["mean_to_nearest"] = float(steps["to_nearest"].mean())
        scores["mean_to_nearest_of_ends"] = float(of_ends.mean())
    return {"steps": {name: values.tolist() for name, values in steps.items()}, **scores}
