"""Training of the base field: batches from coarse to full grids, learning, seeds, and latents of held-out signals."""

import warnings
from dataclasses import replace

import lightning as L
import pytest
import torch

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.signals.fidelity import psnr
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import grid_coords
from wsrl.training.base_data import Examples, SignalBatches, Stage, coarse_grid
from wsrl.training.base_field import BaseFieldTask, BaseTrainingConfig, fit_latents, latent_psnr
from wsrl.training.lightning_noise import quiet_lightning

GRID = (8, 8)
MODEL = BaseFieldConfig(
    field=FieldConfig(width=16, depth=2, num_frequencies=8), latent_size=8, mapping_width=16, mapping_depth=1
)
STAGES = (Stage(resolution=0.5, batch_size=16, steps=40), Stage(resolution=1.0, batch_size=8, steps=80))
CONFIG = BaseTrainingConfig(
    model=MODEL,
    stages=tuple(replace(stage, steps=2 * stage.steps) for stage in STAGES),
    learning_rate=1e-2,
    latent_learning_rate=3e-2,
    ema_decay=0.9,
)


def waves(num: int, seed: int = 0, grid: tuple[int, ...] = GRID) -> torch.Tensor:
    """Pictures ``(N, P, 1)`` from a family of two parameters."""
    parameters = torch.rand(num, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (0.5 + 0.4 * (2 * parameters @ grid_coords(grid).mT).sin()).unsqueeze(-1)


def on_grid(values: torch.Tensor) -> Examples:
    return Examples(values=values, form=SignalForm(in_features=2, out_features=1, grid=GRID))


def train(config: BaseTrainingConfig, values: torch.Tensor, directory) -> BaseFieldTask:
    task = BaseFieldTask(config, len(values), 2, 1)
    batches = SignalBatches(on_grid(values), config.stages, torch.Generator().manual_seed(config.seed + 1))
    with quiet_lightning(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about its defaults
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=directory,
        )
        trainer.fit(task, batches)
    return task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    task = train(CONFIG, waves(24), tmp_path_factory.mktemp("base"))
    return task.finished_base(), task


def test_training_explains_its_signals(trained):
    base, task = trained
    values = waves(24)
    untrained = BaseFieldTask(CONFIG, 24, 2, 1)
    before = latent_psnr(untrained.base, untrained.latents.weight.detach(), on_grid(values))
    after = latent_psnr(base, task.latents.weight.detach(), on_grid(values))
    mean_picture = float(psnr(values.mean(0, keepdim=True).expand_as(values), values, (0.0, 1.0)).mean())
    assert after > before + 5
    assert after > mean_picture + 1, "the latents carry what tells the signals apart"
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_mean_modulation_of_the_training_signals_is_folded_in(trained):
    base, task = trained
    deviations = base.mapping(task.latents.weight.detach())
    for i, deviation in enumerate(deviations):
        mean = base.get_buffer(f"mean_modulation_{i}")
        torch.testing.assert_close(mean, deviation.mean(0), rtol=1e-4, atol=1e-5)
        assert mean.abs().max() > 0


def test_latents_of_heldout_signals_are_fitted_with_the_base_frozen(trained):
    base, _ = trained
    before, heldout = base.sha256(), waves(6, seed=1)
    latents = fit_latents(base, on_grid(heldout).points(slice(None)), steps=100, learning_rate=0.05)
    assert latents.shape == (6, 8) and not latents.requires_grad
    start = latent_psnr(base, torch.zeros_like(latents), on_grid(heldout))
    assert latent_psnr(base, latents, on_grid(heldout)) > start + 1
    assert base.sha256() == before
    alone = fit_latents(base, on_grid(heldout[2:3]).points(slice(None)), steps=100, learning_rate=0.05)
    # A hundred Adam steps magnify the rounding of products of another size, so the fields are compared.
    found, expected = (latent_psnr(base, z, on_grid(heldout[2:3])) for z in (alone, latents[2:3]))
    assert found == pytest.approx(expected, abs=0.2)


def test_same_seed_same_base(tmp_path):
    short = replace(CONFIG, stages=(Stage(batch_size=8, steps=5),))
    hashes = []
    for unrelated in range(2):  # the global generator, whatever its state, has no say
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(unrelated)
            hashes.append(train(short, waves(12), tmp_path).finished_base().sha256())
    other = train(replace(short, seed=1), waves(12), tmp_path).finished_base()
    assert hashes[0] == hashes[1] != other.sha256()


def test_batches_go_through_the_stages_in_order():
    values = waves(20)
    batches = SignalBatches(on_grid(values), STAGES, torch.Generator().manual_seed(0))
    found = list(batches)
    assert len(found) == len(batches) == 120
    for step, (indices, coords, batch, _) in enumerate(found):
        side, size = (4, 16) if step < 40 else (8, 8)
        assert coords.shape == (side * side, 2) and batch.shape == (size, side * side, 1)
        expected = coarse_grid(values, GRID, 0.5)[1] if step < 40 else values
        assert torch.equal(batch, expected[indices])


def test_batches_visit_every_signal_equally_often():
    batches = SignalBatches(on_grid(waves(10)), (Stage(batch_size=4, steps=25),), torch.Generator().manual_seed(0))
    visited = torch.cat([indices for indices, _, _, _ in batches])
    assert (torch.bincount(visited, minlength=10) == 10).all()
    assert visited[:10].tolist() != list(range(10))


def test_batches_depend_on_the_generator_alone():
    def order(seed):
        batches = SignalBatches(on_grid(waves(10)), STAGES, torch.Generator().manual_seed(seed))
        return torch.cat([indices for indices, _, _, _ in batches])

    assert torch.equal(order(0), order(0)) and not torch.equal(order(0), order(1))


def test_fewer_signals_than_a_batch():
    batches = SignalBatches(on_grid(waves(3)), (Stage(batch_size=8, steps=4),), torch.Generator().manual_seed(0))
    assert all(sorted(indices.tolist()) == [0, 1, 2] for indices, _, _, _ in batches)


@pytest.mark.parametrize("grid", [(8, 4), (6,), (4, 4, 6)])
def test_coarse_cells_are_means(grid):
    values = torch.rand(3, torch.Size(grid).numel(), 2, generator=torch.Generator().manual_seed(0))
    coords, coarse = coarse_grid(values, grid, 0.5)
    half = tuple(n // 2 for n in grid)
    assert torch.equal(coords, grid_coords(half))
    cells = values.reshape(3, *grid, 2)
    for axis in range(len(grid)):
        cells = cells.unflatten(axis + 1, (half[axis], 2)).mean(axis + 2)
    torch.testing.assert_close(coarse, cells.reshape(3, -1, 2))
    torch.testing.assert_close(coarse.mean(1), values.mean(1))


def test_coarse_grid_keeps_full_and_tiny_grids():
    values = waves(2)
    coords, same = coarse_grid(values, GRID, 1.0)
    assert same is values and coords is grid_coords(GRID)
    assert coarse_grid(values, GRID, 0.01)[1].shape == (2, 4, 1)
    assert coarse_grid(waves(2, grid=(1, 8)), (1, 8), 0.5)[0].shape == (4, 2)


@pytest.mark.parametrize("stage", [{"resolution": 0.0}, {"resolution": 1.5}, {"batch_size": 0}, {"steps": 0}])
def test_stage_that_cannot_be_trained_is_refused(stage):
    with pytest.raises(UserError, match=r"stage\.\w+ is .*Allowed: (a share in \(0, 1\]|1 or more)"):
        Stage(**stage)


def test_no_stages_are_refused():
    with pytest.raises(UserError, match="base training has no stages"):
        BaseTrainingConfig(stages=())
