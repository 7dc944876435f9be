"""Slots: interleaved points, stopping by quality, refilling, and independence to the bit."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import UserError
from wsrl.fitting import native
from wsrl.fitting.batch_size import suitable_size
from wsrl.fitting.engine import fit
from wsrl.fitting.fit_config import INTERLEAVED_BY, FitConfig
from wsrl.fitting.slots import Slots, interleaved
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

GRID = (6, 5)
TO_QUALITY = FitConfig(
    steps=200, learning_rate=0.05, schedule="hyperbolic", beta2=0.95, interleave=2, target_psnr=18.0, batch_size=4
)


def signals(num: int, grid: tuple[int, ...] = GRID) -> list:
    """Pictures of growing difficulty, so that they take different numbers of steps."""
    coords = grid_coords(grid)
    waves = [0.5 + 0.4 * (coords @ torch.tensor([[1.0 + n], [2.0 - n]]) * 1.5).sin() for n in range(num)]
    form = SignalForm(in_features=2, out_features=1, grid=grid)
    made = [Signal(id=f"wave/{n}", coords=coords, values=values, form=form) for n, values in enumerate(waves)]
    return [(n, signal.id, signal) for n, signal in enumerate(made)]


def by_id(results) -> dict:
    return {result.id: result for result in results}


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (3, 4, 5), None])
@pytest.mark.parametrize("subsets", [1, 2, 3, 4, 8])
def test_subsets_share_out_all_points_evenly(grid, subsets):
    num = 23 if grid is None else torch.Size(grid).numel()
    parts = interleaved(grid, num, subsets)
    assert torch.cat(parts).sort().values.tolist() == list(range(num))
    sizes = [len(part) for part in parts]
    assert len(parts) == subsets and max(sizes) <= 2 * min(sizes) + 2


def test_two_subsets_of_a_picture_are_a_checkerboard():
    black, white = interleaved((4, 4), 16, 2)
    assert black.tolist() == [0, 2, 5, 7, 8, 10, 13, 15] and white.tolist() == [1, 3, 4, 6, 9, 11, 12, 14]


def test_more_subsets_than_points():
    assert [part.tolist() for part in interleaved(None, 3, 8)] == [[0], [1], [2]]


def test_fields_stop_at_the_asked_quality_and_their_slots_are_refilled():
    representation = contracts.tiny_representation("mlora_asym")
    results = list(fit(representation, signals(9), TO_QUALITY))
    steps = [result.metrics["steps"] for result in results]
    assert len(set(steps)) > 2, "all took the same number of steps: nothing was refilled"
    assert [result.id for result in results] != [f"wave/{n}" for n in range(9)], "an easy one overtakes a hard one"
    for result in results:
        reached = result.metrics["psnr"] >= 18.0
        assert result.status == ("ok" if reached else "short")
        assert reached or result.metrics["steps"] == 200
        weights = {name: value[None] for name, value in result.weights.items()}
        index = int(result.id.split("/")[1])
        signal = signals(9)[index][2]
        error = (representation.evaluate(weights, signal.coords)[0] - signal.values).square().mean()
        assert result.metrics["psnr"] == pytest.approx(float(-10 * error.log10()), abs=1e-3)
    assert any(result.status == "ok" for result in results)


@pytest.mark.parametrize(("steps", "subsets"), [(7, 3), (2, 4), (1, 1)])
@pytest.mark.parametrize("target", [None, 90.0])
def test_steps_that_are_no_whole_turn_of_the_subsets(steps, subsets, target):
    config = replace(TO_QUALITY, steps=steps, interleave=subsets, target_psnr=target)
    results = list(fit(contracts.tiny_representation("mlora"), signals(5), config))
    assert [result.metrics["steps"] for result in results] == [steps] * 5


def test_a_quality_out_of_reach_is_reported():
    (result,) = fit(contracts.tiny_representation("mlora"), signals(1), replace(TO_QUALITY, steps=6, target_psnr=90.0))
    assert result.status == "short" and result.metrics["steps"] == 6 and result.weights is not None


@pytest.mark.skipif(bool(native.load()[1]), reason=f"no kernel here: {native.load()[1]}")
@pytest.mark.parametrize("kind", ["mlora_asym", "lora", "mlp"])
@pytest.mark.parametrize("target", [None, 18.0])
@pytest.mark.parametrize("by", INTERLEAVED_BY)
def test_no_bit_depends_on_batch_size_neighbours_or_order(kind, target, by):
    representation = contracts.tiny_representation(kind)
    config = replace(TO_QUALITY, target_psnr=target, steps=40, interleave_by=by)
    given = signals(7)
    expected = by_id(fit(representation, given, config))
    for batch_size, order in ((1, range(7)), (3, [6, 2, 5, 0, 1, 4, 3]), (16, [4, 1])):
        found = by_id(fit(representation, [given[n] for n in order], replace(config, batch_size=batch_size)))
        for name, result in found.items():
            assert result.metrics == expected[name].metrics
            assert all(torch.equal(value, expected[name].weights[key]) for key, value in result.weights.items())


@pytest.mark.parametrize("look_every", [1, 3, 8])
@pytest.mark.parametrize("by", INTERLEAVED_BY)
def test_how_often_the_losses_are_looked_at_changes_nothing(look_every, by, monkeypatch):
    """On a GPU a look is rare; a field that met its rule stands still, moments included, until it comes."""
    monkeypatch.setattr("wsrl.fitting.slots.LOOK_EVERY", {"cpu": look_every})
    representation, config = contracts.tiny_representation("mlora_asym"), replace(TO_QUALITY, interleave_by=by)
    found = by_id(fit(representation, signals(5), config))
    monkeypatch.undo()
    expected = by_id(fit(representation, signals(5), config))
    for name, result in found.items():
        assert result.metrics["steps"] == expected[name].metrics["steps"]
        assert all(torch.equal(value, expected[name].weights[key]) for key, value in result.weights.items())


def test_frozen_entries_never_move():
    representation = contracts.tiny_representation("lora_asym")
    results = list(fit(representation, signals(3), TO_QUALITY))
    start = representation.layout.flatten(representation.initial())
    trainable = representation.layout.trainable()
    for result in results:
        numbers = representation.layout.flatten(result.weights)
        assert torch.equal(numbers[~trainable], start[~trainable])
        assert not torch.equal(numbers[trainable], start[trainable])


def test_steps_run_on_the_meta_device():
    """The steps of a GPU without one: no value is read back between two looks."""
    representation = contracts.tiny_representation("mlora_asym").to("meta")
    config = replace(TO_QUALITY, batch_size=4)
    slots = Slots(representation, config, 4, coords=grid_coords(GRID), grid=GRID, device="meta")
    for number in range(4):
        slots.put(number, torch.zeros(representation.layout.num_weights), torch.zeros(30, 1), 1.0)
    for step in range(16):
        slots._step(step % 2, 2, subsets=True)
    assert len(slots) == 4


def test_the_measured_batch_size_is_a_power_of_two_and_changes_no_result():
    representation = contracts.tiny_representation("mlora_asym")
    config = replace(TO_QUALITY, target_psnr=None, steps=10)

    def make(num: int) -> Slots:
        return Slots(representation, replace(config, steps=1000), num, coords=grid_coords(GRID), grid=GRID)

    size = suitable_size(make, representation)
    assert size >= 8 and size & (size - 1) == 0
    found = by_id(fit(representation, signals(3), replace(config, batch_size=None)))
    for name, result in by_id(fit(representation, signals(3), config)).items():
        assert found[name].metrics["psnr"] == pytest.approx(result.metrics["psnr"], abs=0.02)


def test_memory_sets_the_batch_size():
    representation = contracts.tiny_representation("mlora_asym")

    def make(num: int) -> Slots:
        if num > 16:
            raise MemoryError
        return Slots(representation, replace(TO_QUALITY, target_psnr=None), num, coords=grid_coords(GRID), grid=GRID)

    assert suitable_size(make, representation) <= 16


def test_the_last_steps_see_all_points():
    """The field that saw a checkerboard first ends closer than one that never saw all its points at once."""
    representation = contracts.tiny_representation("mlora_asym")
    fixed = replace(TO_QUALITY, target_psnr=None, steps=60, schedule="cosine", interleave=4, learning_rate=0.1)
    mean = {}
    for share in (0.0, 0.5, 1.0):
        results = list(fit(representation, signals(8), replace(fixed, interleave_share=share)))
        assert all(result.metrics["steps"] == 60 for result in results)
        mean[share] = sum(result.metrics["psnr"] for result in results) / len(results)
    everything = list(fit(representation, signals(8), replace(fixed, interleave=1)))
    assert mean[0.0] == pytest.approx(sum(result.metrics["psnr"] for result in everything) / 8, abs=0.01)
    assert mean[1.0] < mean[0.5]


def test_a_field_that_diverges_does_not_bring_the_others_out_of_step():
    representation = contracts.tiny_representation("mlora_asym")
    config = replace(TO_QUALITY, target_psnr=None, steps=20, interleave_share=0.5, batch_size=2)
    form = SignalForm(in_features=2, out_features=1, grid=GRID)
    huge = Signal(id="huge", coords=grid_coords(GRID), values=torch.full((30, 1), 1e38), form=form)
    found = by_id(fit(representation, [(9, "huge", huge), *signals(4)], config))
    assert found.pop("huge").status == "failed"
    for name, result in by_id(fit(representation, signals(4), config)).items():
        assert found[name].metrics["psnr"] == pytest.approx(result.metrics["psnr"], abs=0.01)


def test_points_drawn_by_error_bring_details_sooner():
    """Where little is wrong in most places, steps that look where it is get further than evenly spread ones."""
    representation, grid = contracts.tiny_representation("mlora_asym"), (16, 16)
    coords = grid_coords(grid)
    values = 0.5 + 0.4 * torch.exp(-40 * (coords - 0.4).square().sum(1, keepdim=True))
    form = SignalForm(in_features=2, out_features=1, grid=grid)
    items = [(0, "spot", Signal(id="spot", coords=coords, values=values, form=form))]
    fixed = replace(TO_QUALITY, target_psnr=None, steps=96, interleave=16, learning_rate=0.1)
    found = {by: next(fit(representation, items, replace(fixed, interleave_by=by))) for by in INTERLEAVED_BY}
    assert found["error"].metrics["psnr"] > found["place"].metrics["psnr"] + 0.5


def test_drawing_by_error_asks_for_a_grid():
    with pytest.raises(UserError, match="interleave_by is 'error' and the points form no grid"):
        list(fit(contracts.tiny_representation("mlora"), scattered(), replace(TO_QUALITY, interleave_by="error")))


def scattered() -> list:
    coords = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    form = SignalForm(in_features=2, out_features=1, grid=None)
    return [(0, "dots", Signal(id="dots", coords=coords, values=torch.zeros(20, 1), form=form))]


def test_a_share_with_a_target_is_refused():
    with pytest.raises(UserError, match=r"fit\.interleave_share"):
        replace(TO_QUALITY, interleave_share=0.5)
