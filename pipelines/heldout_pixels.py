"""How well fits know pixels that they did not see: a random third of a picture is left out, and compared afterwards.

Letters: N pictures, P pixels, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wsrl.fields import Representation
from wsrl.fitting.engine import FitConfig, field_seed, optimise, own_start
from wsrl.signals.fidelity import psnr
from wsrl.signals.signal import Signal

LEFT_OUT = 1 / 3
"""Share of the pixels that a fit does not see."""
BATCH = 16


def heldout_psnr(representation: Representation, signals: Sequence[Signal], how: FitConfig, seed: int) -> Tensor:
    """PSNR in dB at pixels that the fits did not see.

    Args:
        representation: What the weights are.
        signals: Pictures on one grid; the same random third of the pixels of each is left out of its fit.
        how: How they are fitted; so many together as its batch size says.
        seed: Seed of the choice of pixels.

    Returns:
        One number per picture ``(N,)``; 0 dB where the fit ended in no number.
    """
    hidden, seen = hidden_and_seen(len(signals[0].coords), seed)
    batch, found = how.batch_size or BATCH, []
    for first in range(0, len(signals), batch):
        some = signals[first : first + batch]
        values = torch.stack([signal.values for signal in some])  # (B, P, C)
        weights = optimise(
            representation, starts(representation, some, how), some[0].coords[seen], values[:, seen], how
        )
        with torch.no_grad():
            outputs = representation.evaluate(weights, some[0].coords[hidden])
        scores = psnr(outputs, values[:, hidden], some[0].form.value_range)
        found.append(torch.where(scores.isfinite(), scores, 0.0))
    return torch.cat(found)


def hidden_and_seen(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the pixels that are left out, and of the others.

    Args:
        num: Number P of pixels.
        seed: Seed of the choice.
    """
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    num_hidden = round(LEFT_OUT * num)
    return order[:num_hidden], order[num_hidden:]


def starts(representation: Representation, signals: Sequence[Signal], how: FitConfig) -> dict[str, Tensor]:
    """What :func:`wsrl.fitting.engine.fit` would start each picture from ``(N, *shape)``."""
    if representation.config.start == "shared":
        return {name: torch.stack([one] * len(signals)) for name, one in representation.initial().items()}
    own = [own_start(representation, field_seed(how.seed, signal.id)) for signal in signals]
    return representation.layout.unflatten(torch.stack(own))
