"""Fields that blow up go back to where they were best, with smaller steps; all others are what they were."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts
from fitting.test_engine import CONFIG, assert_same_field, by_id, items

from wsrl.fitting import slots
from wsrl.fitting.engine import fit

STEEP = replace(CONFIG, steps=120, learning_rate=2.0, warmup=0.0)


def fitted(config, numbers=range(6)):
    representation = contracts.tiny_representation("mlora", rank=2)
    return by_id(fit(representation, items(numbers), config))


def without(monkeypatch, config, numbers=range(6)):
    with monkeypatch.context() as patch:
        patch.setattr(slots, "MOST_RETURNS", 0)
        return fitted(config, numbers)


@pytest.mark.parametrize("gradient", ["kernel", "autograd"])
def test_steps_that_are_too_large_end_in_a_field_all_the_same(monkeypatch, gradient):
    config = replace(STEEP, gradient=gradient)
    before, after = without(monkeypatch, config), fitted(config)
    losses = [
        torch.tensor([result.metrics.get("loss", torch.inf) for result in found.values()]) for found in (before, after)
    ]
    assert losses[0].max() > 1 and losses[1].max() < 0.3 * losses[0].max(), losses
    assert all(result.status == "ok" for result in after.values())


def test_fields_that_do_not_blow_up_are_the_same_bit_for_bit(monkeypatch):
    for config in (CONFIG, replace(CONFIG, interleave=3), replace(CONFIG, prior_strength=1e-3)):
        before, after = without(monkeypatch, config), fitted(config)
        for name, result in before.items():
            assert all(torch.equal(tensor, after[name].weights[key]) for key, tensor in result.weights.items())


def test_a_return_depends_on_nobody_else():
    together = fitted(replace(STEEP, batch_size=6))
    for number in range(6):
        (alone,) = fitted(replace(STEEP, batch_size=1), [number]).values()
        assert alone.metrics["steps"] == together[alone.id].metrics["steps"] == STEEP.steps
        assert alone.metrics["loss"] == pytest.approx(together[alone.id].metrics["loss"], rel=0.5, abs=0.02)


def test_a_field_that_moves_to_another_slot_keeps_where_it_was_best():
    config = replace(CONFIG, target_psnr=7.0, batch_size=3, steps=40)
    together = fitted(config, range(8))
    assert len({result.metrics["steps"] for result in together.values()}) > 1
    for number in range(8):
        (alone,) = fitted(replace(config, batch_size=1), [number]).values()
        assert_same_field(together[alone.id], alone)
