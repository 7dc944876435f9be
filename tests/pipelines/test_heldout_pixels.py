"""What fits say of pixels that they did not see."""

import pytest
import torch

from pipelines.heldout_pixels import heldout_psnr, hidden_and_seen
from tests import contracts
from wsrl.fitting.engine import FitConfig
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

FORM = SignalForm(in_features=2, out_features=1, grid=(8, 8))
COORDS = grid_coords((8, 8))


def picture(name: str, values: torch.Tensor) -> Signal:
    return Signal(id=name, coords=COORDS, values=values, form=FORM)


NOISE = picture("noise", torch.rand(64, 1, generator=torch.Generator().manual_seed(0)))
SMOOTH = picture("smooth", 0.5 + 0.2 * COORDS[:, :1])


def test_pixels_between_are_not_seen():
    """A field that fits noise closely where it looks cannot know it elsewhere."""
    representation = contracts.tiny_representation("mlp")
    how = FitConfig(steps=300, learning_rate=0.02)
    noise, smooth = heldout_psnr(representation, [NOISE, SMOOTH], how, 0).tolist()
    assert noise < 12 < smooth


def test_what_lies_on_hidden_pixels_changes_no_fit():
    """With other values there the fit is the same: the error at them is what it was, and theirs is another."""
    hidden, seen = hidden_and_seen(64, 3)
    assert len(hidden) == 21 and sorted([*hidden.tolist(), *seen.tolist()]) == list(range(64))
    other = SMOOTH.values.clone()
    other[hidden] = 0.5
    representation = contracts.tiny_representation("mlora_asym")
    how = FitConfig(steps=30, learning_rate=0.02)
    both = heldout_psnr(representation, [SMOOTH, picture("other", other)], how, 3)
    assert both[0] != both[1]
    # the mean squared errors of both, from the one fit of the pixels that they share
    alone = heldout_psnr(representation, [SMOOTH], how, 3)
    assert both[0].item() == pytest.approx(alone.item(), abs=1e-3), "fields do not depend on each other"


def test_random_starts_are_those_of_the_pictures():
    how = FitConfig(steps=1, learning_rate=1e-6)
    twice = [SMOOTH, picture("again", SMOOTH.values)]
    first, second = heldout_psnr(contracts.tiny_representation("mlp", start="random"), twice, how, 0).tolist()
    assert abs(first - second) > 0.01
    first, second = heldout_psnr(contracts.tiny_representation("mlp"), twice, how, 0).tolist()
    assert first == pytest.approx(second, abs=1e-4)
