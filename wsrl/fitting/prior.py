"""The prior of a fit: how far each weight usually goes from the start, which the pull toward it is measured in.

The penalty ``s/2 sum_i ((w_i - w0_i) / d_i)^2`` beside a mean squared error is the MAP estimate under a normal prior
about the start. Its widths ``d`` are one for all weights, or come from a first pass over some signals (empirical
Bayes), scaled so that their mean square is one: ``s`` then means the same for both.

Letters: N fields, W weights of a field.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.representation import Representation
from wsrl.fitting.engine import fit, own_start, read_signals
from wsrl.fitting.fit_config import FitConfig
from wsrl.signals.source import Source, prepare_signals

NUM_SIGNALS = 256
"""Signals of the first pass: the widths are then known to about 4%."""
LEAST_WIDTH = 0.05
"""Widths are at least so large, so that a weight which the first pass hardly moved can still be moved."""


def prior_widths(distances: Tensor, trainable: Tensor) -> Tensor:
    """Widths ``(W,)`` of the prior from distances from the start.

    Args:
        distances: Weights less their start ``(N, W)``.
        trainable: Which weights are trained ``(W,)``; the width of the others is one.

    Returns:
        Root mean squares over the fields, over the root mean square of those of all trainable weights.
    """
    squares = distances.double().square().mean(dim=0)
    common = squares[trainable].mean()
    if not common > 0:
        return torch.ones(len(squares))
    widths = (squares / common).sqrt().clamp(min=LEAST_WIDTH).float()
    return torch.where(trainable.cpu(), widths, 1.0)


def first_pass(
    source: Source, indices: Sequence[int], representation: Representation, config: FitConfig, device: str = "cpu"
) -> Tensor:
    """Widths ``(W,)`` of the prior from a fit without one.

    Args:
        source: The signals.
        indices: Those that may be looked at; of many, ``NUM_SIGNALS`` that are spread evenly.
        representation: What the weights are.
        config: How the fields will be fitted.
        device: Where to compute.

    Raises:
        UserError: None of the signals can be fitted.
    """
    layout, step = representation.layout, max(1, len(indices) // NUM_SIGNALS)
    some = list(indices)[::step][:NUM_SIGNALS]
    prepare_signals(source, some)
    results = fit(representation, read_signals(source, some), replace(config, prior_strength=0.0), device=device)
    fields = [result for result in results if result.weights is not None]
    if not fields:
        raise UserError(
            "fit.prior_scale is 'data' and none of the signals of the first pass could be fitted",
            allowed="start, or data whose fits do not all fail",
            do="set fit.prior_scale to start, or lower fit.learning_rate",
        )
    ends = torch.stack([layout.flatten(result.weights) for result in fields])  # (N, W)
    if representation.config.start == "shared":
        starts = layout.flatten(representation.initial()).cpu()  # (W,)
    else:
        starts = torch.stack([own_start(representation, result.seed).cpu() for result in fields])  # (N, W)
    return prior_widths(ends - starts, layout.trainable())
