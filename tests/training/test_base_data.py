"""Examples whose points form no grid: their batches, what is kept of them, and a base field that learns them."""

import warnings

import lightning as L
import pytest
import torch

from wsrl.fields.modulated_base import BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords
from wsrl.training.base_data import Examples, SignalBatches, Stage
from wsrl.training.base_field import BaseFieldTask, BaseTrainingConfig, fit_latents, latent_psnr
from wsrl.training.lightning_noise import quiet_lightning

CLAMP = 0.5


def ball(number: int, quantity: str = "sdf", num_points: int = 200) -> Signal:
    """A ball of its own radius at points of its own, with weights."""
    generator = torch.Generator().manual_seed(number)
    coords = torch.rand(num_points, 3, generator=generator) * 2 - 1
    distances = coords.norm(dim=1, keepdim=True) - (0.3 + 0.5 * torch.rand((), generator=generator))
    sdf = quantity == "sdf"
    values = distances.clamp(-CLAMP, CLAMP) if sdf else (distances < 0).float()
    value_range = (-CLAMP, CLAMP) if sdf else (0.0, 1.0)
    form = SignalForm(in_features=3, out_features=1, value_range=value_range, quantity=quantity)
    return Signal(id=f"balls/{number}", coords=coords, values=values, form=form, weights=1 + distances[:, 0].abs())


def test_batches_draw_points_of_their_own_signals():
    signals = [ball(number) for number in range(5)]
    examples = Examples.of(signals, max_points=150)
    stages = (Stage(resolution=0.1, batch_size=2, steps=7), Stage(resolution=1.0, batch_size=3, steps=2))
    found = [list(SignalBatches(examples, stages, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
    assert len(found[0]) == 9
    for step, batch in enumerate(found[0]):
        size, points = (2, 15) if step < 7 else (3, 150)
        assert batch.coords.shape == (size, points, 3) and batch.values.shape == (size, points, 1)
        for index, coords, values, weights in zip(*batch):
            given = {tuple(c.tolist()): (v.item(), w.item()) for c, v, w in zip(*_first(signals[index], 150))}
            assert all(
                given[tuple(c.tolist())] == (v.item(), w.item()) for c, v, w in zip(coords, values[:, 0], weights)
            )
    assert all(torch.equal(a.coords, b.coords) for a, b in zip(found[0], found[1]))
    assert not torch.equal(found[0][0].coords, found[2][0].coords)


def _first(signal: Signal, number: int):
    return signal.coords[:number], signal.values[:number, 0], signal.weights[:number]


def test_what_is_kept_of_a_signal_holds_no_more_memory_than_its_points():
    signal = ball(0)
    kept = Examples.first_points(signal, 20)
    assert type(kept) is Signal and kept.id == signal.id and kept.form == signal.form
    assert torch.equal(kept.coords, signal.coords[:20]) and torch.equal(kept.weights, signal.weights[:20])
    assert kept.coords.untyped_storage().nbytes() == 20 * 3 * 4
    form = SignalForm(in_features=2, out_features=1, grid=(3, 3))
    picture = Signal(id="p", coords=grid_coords((3, 3)), values=torch.zeros(9, 1), form=form)
    assert Examples.first_points(picture, 2) is picture


@pytest.mark.parametrize("quantity", ["sdf", "occupancy"])
def test_a_base_field_learns_shapes_and_heldout_ones_too(quantity, tmp_path):
    model = BaseFieldConfig(
        field=FieldConfig(width=16, depth=2, num_frequencies=8, frequency_scale=0.3), latent_size=4, mapping_width=16
    )
    config = BaseTrainingConfig(
        model=model, stages=(Stage(resolution=0.5, batch_size=8, steps=150),), learning_rate=1e-2, ema_decay=0.9
    )
    train, heldout = (Examples.of([ball(n, quantity) for n in part], 200) for part in (range(16), range(16, 20)))
    task = BaseFieldTask(config, len(train), *train.sizes, train.loss)
    untrained = latent_psnr(task.base, task.latents.weight.detach(), train)
    with quiet_lightning(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about its defaults
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet
        )
        trainer.fit(task, SignalBatches(train, config.stages, torch.Generator().manual_seed(1)))
    base = task.finished_base()
    assert latent_psnr(base, task.latents.weight.detach(), train) > untrained + 3
    batch = heldout.points(slice(None), 100)
    latents = fit_latents(base, batch, steps=60, learning_rate=0.05, loss=heldout.loss)
    assert latent_psnr(base, latents, heldout) > latent_psnr(base, torch.zeros_like(latents), heldout)
