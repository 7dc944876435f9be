"""Signals whose points form no grid: distances and occupancy, points drawn step by step, for every kind of field."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import UserError
from wsrl.fields.representation import KINDS
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.fitting.slots import Slots
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

CLAMP = 0.3
POINTS = 90
CONFIG = FitConfig(steps=40, learning_rate=0.02, points_per_step=32, seed=3)


def ball(number: int, quantity: str = "sdf") -> Signal:
    """A ball of its own size and place, at points of its own."""
    generator = torch.Generator().manual_seed(number)
    coords = torch.rand(POINTS, 3, generator=generator) * 2 - 1
    center, radius = 0.2 * torch.randn(3, generator=generator), 0.5 + 0.2 * torch.rand((), generator=generator)
    distances = (coords - center).norm(dim=1, keepdim=True) - radius
    values, value_range = distances.clamp(-CLAMP, CLAMP), (-CLAMP, CLAMP)
    if quantity == "occupancy":
        values, value_range = (distances < 0).float(), (0.0, 1.0)
    weights = 1 + 2 * torch.exp(-distances[:, 0].abs() / 0.1)
    form = SignalForm(in_features=3, out_features=1, value_range=value_range, quantity=quantity)
    return Signal(id=f"balls/{number}", coords=coords, values=values, form=form, weights=weights)


def fitted(representation, signals, config=CONFIG) -> dict:
    return {result.id: result for result in fit(representation, [(i, s.id, s) for i, s in enumerate(signals)], config)}


def bits(result) -> list:
    return [tensor.numpy().tobytes() for tensor in result.weights.values()]


@pytest.mark.parametrize("quantity", ["sdf", "occupancy"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_a_shape(kind, quantity):
    representation = contracts.tiny_representation(kind, in_features=3)
    signals = [ball(number, quantity) for number in range(3)]
    config = replace(CONFIG, steps=150, learning_rate=0.05)
    results = fitted(representation, signals, config)
    before = fitted(representation, signals, replace(CONFIG, steps=1, learning_rate=1e-9))
    for signal in signals:
        result = results[signal.id]
        assert result.metrics["loss"] < 0.5 * before[signal.id].metrics["loss"]
        batched = {name: tensor[None] for name, tensor in result.weights.items()}
        values = representation.evaluate(batched, signal.coords)[0]
        inside = signal.values < 0 if quantity == "sdf" else signal.values > 0.5
        agreement = ((values < 0) == inside).float().mean().item()  # negative inside, whatever the quantity
        assert agreement == pytest.approx(result.metrics["sign_agreement"], abs=0.02) and agreement > 0.75


def test_the_recorded_loss_and_psnr_by_hand():
    representation = contracts.tiny_representation("mlora_asym", in_features=3)
    signal = ball(1)
    result = fitted(representation, [signal])[signal.id]
    values = representation.evaluate({name: t[None] for name, t in result.weights.items()}, signal.coords)[0]
    wrong = values - signal.values
    forgiven = ((signal.values >= CLAMP) & (wrong > 0)) | ((signal.values <= -CLAMP) & (wrong < 0))
    loss = (wrong.masked_fill(forgiven, 0.0).square()[:, 0] * signal.weights).mean()
    error = (values.clamp(-CLAMP, CLAMP) - signal.values).square().mean()
    assert result.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert result.metrics["psnr"] == pytest.approx(10 * torch.log10((2 * CLAMP) ** 2 / error).item(), abs=1e-3)
    assert "ssim" not in result.metrics


@pytest.mark.parametrize("kind", ["mlora_asym", "mlp"])
def test_no_bit_depends_on_the_neighbours_or_the_batch_size(kind):
    representation = contracts.tiny_representation(kind, in_features=3)
    signals = [ball(number) for number in range(5)]
    together = fitted(representation, signals, replace(CONFIG, batch_size=3))
    alone = fitted(representation, signals[::-1], replace(CONFIG, batch_size=1))
    again = fitted(representation, signals, replace(CONFIG, batch_size=3))
    for signal_id, result in together.items():
        assert bits(result) == bits(again[signal_id])
        if Slots(representation, CONFIG, 1, coords=signals[0].coords, shared=False).gradient.__class__.__name__ == (
            "KernelGradient"
        ):
            assert bits(result) == bits(alone[signal_id])


def test_points_are_drawn_per_field_and_each_seed_draws_others(monkeypatch):
    """What each step sees: all points once in every turn, in an order that the field's seed decides."""
    seen = []
    put = Slots.put

    def watched(self, tag, start, values, peak, coords=None, weights=None):
        put(self, tag, start, values, peak, coords, weights)
        seen.append([coords[part.indices] for part in self._parts])

    monkeypatch.setattr(Slots, "put", watched)
    representation = contracts.tiny_representation("mlora", in_features=3)
    same_points = [replace(ball(0), id=f"balls/{name}") for name in "ab"]
    fitted(representation, same_points)
    fitted(representation, same_points)
    fitted(representation, same_points, replace(CONFIG, seed=4))
    assert [len(part) for part in seen[0]] == [30, 30, 30]
    for parts in seen:
        together = torch.cat(parts)
        assert torch.equal(together.sort(dim=0).values, same_points[0].coords.sort(dim=0).values)
    a, b, again, _, other_seed, _ = (torch.cat(parts) for parts in seen)
    assert torch.equal(a, again) and not torch.equal(a, b) and not torch.equal(a, other_seed)


def test_points_without_weights_or_without_a_limit():
    representation = contracts.tiny_representation("mlora", in_features=3)
    plain, weighted = replace(ball(2), weights=None), ball(2)
    ones = replace(plain, weights=torch.ones(POINTS))
    results = [fitted(representation, [signal])[signal.id] for signal in (plain, ones, weighted)]
    assert bits(results[0]) == bits(results[1]) != bits(results[2])
    every = fitted(representation, [plain], replace(CONFIG, points_per_step=None))[plain.id]
    at_least = fitted(representation, [plain], replace(CONFIG, points_per_step=10 * POINTS))[plain.id]
    assert every.metrics["loss"] == pytest.approx(at_least.metrics["loss"], rel=1e-3)  # the order of a sum differs


def test_signals_of_several_quantities_and_sizes_in_one_stream():
    representation = contracts.tiny_representation("mlora", in_features=3)
    signals = [ball(0), ball(1, "occupancy"), replace(ball(2), weights=None), ball(3)]
    alone = {signal.id: fitted(representation, [signal])[signal.id] for signal in signals}
    assert {key: bits(result) for key, result in fitted(representation, signals).items()} == {
        key: bits(result) for key, result in alone.items()
    }


def test_settings_that_make_no_sense_are_refused():
    representation = contracts.tiny_representation("mlora", in_features=3)
    with pytest.raises(UserError, match="target_psnr is 30"):
        fitted(representation, [ball(0)], replace(CONFIG, target_psnr=30.0))
    form = SignalForm(in_features=3, out_features=1, grid=(3, 3, 3))
    picture = Signal(id="p", coords=grid_coords(form.grid), values=torch.zeros(27, 1), form=form)
    with pytest.raises(UserError, match="points_per_step is 32 and the points form a grid"):
        fitted(representation, [picture])


def test_signals_are_read_ahead_and_an_abandoned_reading_ends():
    class Watched:
        ids = [f"balls/{number}" for number in range(50)]  # noqa: RUF012
        read = []  # noqa: RUF012

        def __getitem__(self, index):
            self.read.append(index)
            return ball(index)

    source = Watched()
    reading = read_signals(source, range(50))
    assert next(reading)[0] == 0 and next(reading)[0] == 1
    reading.close()
    assert 2 <= len(source.read) <= 10
