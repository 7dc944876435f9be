"""The Lightning task of the weight autoencoder on real, tiny stores."""

import copy

import lightning as L
import pytest
import torch
from contracts import tiny_representation

from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.errors import UserError
from wsrl.evaluation.picture_classifier import ClassifierOptions
from wsrl.evaluation.picture_features import LabelledPictures, kept_classifier
from wsrl.signals.fidelity import psnr
from wsrl.signals.signal import grid_coords
from wsrl.store import FitResult, WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize
from wsrl.training.autoencoder import AutoencoderTask, divergence
from wsrl.training.weight_data import WeightDataModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning on torch 2.13
    pytest.mark.filterwarnings("ignore:.*No negative sampling.*"),
]

TINY = {
    "latent_tokens": 2, "latent_channels": 3, "width": 16, "depth": 1, "decoder_depth": 1, "heads": 2,
    "num_points": 16, "warmup_steps": 2, "learning_rate": 3e-3,
}  # fmt: skip
EXACT = {"weight_loss": 1.0, "weight_noise": 0.0, "latent_noise": 0.01, "learning_rate": 1e-2}
TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}
GRID = (4, 6)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")


def write_store(path, *, num=60, in_features=2, source=None):
    """A finished store of fields that differ from the shared start along three directions, so that six numbers do."""
    representation = tiny_representation("mlora_asym", in_features=in_features)
    layout, generator = representation.layout, torch.Generator().manual_seed(0)
    given = {"grid": list(GRID), "channels": 1} if source is None else source
    create_or_resume(
        path,
        layout=layout,
        representation=representation.to_dict(),
        base_sha256=representation.base.sha256(),
        source={"name": "toy", **given},
        fit={},
        num_signals=num,
        num_shards=1,
        label_names=(),
        save_base=representation.base.save_pretrained,
    )
    start = layout.flatten(representation.initial())
    directions = 0.1 * torch.randn(3, len(start), generator=generator) * layout.trainable()
    with ShardWriter(path, 0) as writer:
        rows = []
        for i in range(num):
            weights = layout.unflatten(start + torch.randn(3, generator=generator) @ directions)
            rows.append(FitResult(index=i, id=f"toy/{i}", weights=weights, split="test" if i % 6 == 0 else "train"))
        writer.write_segment(rows)
        writer.finish()
    finalize(path)
    return path


class FixedOrder(WeightDataModule):
    """Train batches in the order of the store, so that only the task decides what a step does."""

    def train_dataloader(self):
        return self._loader("train", None)


def fit(store, root, *, epochs, checkpoint=None, callbacks=(), **options):
    task = AutoencoderTask(**(TINY | options))
    trainer = L.Trainer(
        max_epochs=epochs, default_root_dir=root, callbacks=list(callbacks), enable_checkpointing=False, **TRAINER
    )
    trainer.fit(task, FixedOrder(str(store), batch_size=16, num_workers=0), ckpt_path=checkpoint, weights_only=True)
    return task, trainer


def test_it_reconstructs_fields_it_has_not_seen_and_leaves_the_averaged_network(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=60, **EXACT)
    assert {"latent_std_mean", "latent_std_min", "latent_std_max"} <= trainer.callback_metrics.keys()
    (found,) = trainer.test(task, trainer.datamodule, verbose=False)
    assert found["test_weight_error"] < 0.3 and found["test_signal_error"] < 0.3  # the mean field scores about 1
    saved = open_autoencoder(tmp_path / "run")
    for name, tensor in task.average.module.state_dict().items():
        assert torch.equal(saved.state_dict()[name], tensor), name
    assert not torch.equal(saved.latent_mean, torch.zeros_like(saved.latent_mean))
    vectors = torch.cat([saved.encode(batch.weights) for batch in trainer.datamodule.batches("train")])
    torch.testing.assert_close(vectors.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(vectors.std(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"model"}


def test_the_reported_psnr_is_that_of_the_rendered_fields(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=1)
    (found,) = trainer.test(task, trainer.datamodule, verbose=False)
    saved, opened = open_autoencoder(tmp_path / "run"), WeightStore.open(store)
    (batch,) = opened.batches(100, split="test")
    evaluate = opened.representation.evaluate
    values = [evaluate(weights, grid_coords(GRID)) for weights in (saved(batch.weights), batch.weights)]
    assert found["test_psnr"] == pytest.approx(float(psnr(*values, (0.0, 1.0)).mean()), abs=1e-3)


def test_the_loss_is_the_weighted_sum_of_its_parts(store, tmp_path):
    weights = {"weight_loss": 0.5, "signal_loss": 2.0, "kl_weight": 0.25}
    _, trainer = fit(store, tmp_path / "run", epochs=1, **weights)
    found = trainer.callback_metrics
    expected = 0.5 * found["train_weight"] + 2.0 * found["train_signal"] + 0.25 * found["train_kl"]
    torch.testing.assert_close(found["train_loss"], expected)
    assert all(float(found[f"train_{name}"]) > 0 for name in ("weight", "signal", "kl"))


def test_the_error_of_the_signal_is_a_share_of_its_variance(store, tmp_path):
    task, _ = fit(store, tmp_path / "run", epochs=1)
    (batch,) = WeightStore.open(store).batches(100, split="test")
    exact = task.model.statistics.normalise(batch.weights)

    def error(vector):
        return float(task._rendered_errors(batch.weights, vector, torch.Generator().manual_seed(0))["signal"])

    assert error(exact) < 1e-6 < 0.2 < error(torch.zeros_like(exact)) < 5


def test_the_base_field_stays_as_it_is_and_is_no_part_of_the_model(store, tmp_path):
    opened = WeightStore.open(store)
    before = copy.deepcopy(opened.representation.base.state_dict())
    task, _ = fit(store, tmp_path / "run", epochs=2)
    for name, tensor in task._signal.representation.base.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any("base" in name for name in task.state_dict())


class StopAfter(L.Callback):
    """Ends a run after some epochs, as Ctrl-C between two epochs would."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, task):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


@pytest.mark.parametrize("kl", [False, True])
def test_a_resumed_run_ends_as_an_undisturbed_one_with_the_same_plan(store, tmp_path, kl):
    whole, _ = fit(store, tmp_path / "whole", epochs=3, kl=kl)
    _, stopped = fit(store, tmp_path / "half", epochs=3, kl=kl, callbacks=[StopAfter(1)])
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(store, tmp_path / "rest", epochs=3, kl=kl, checkpoint=tmp_path / "half.ckpt")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, msg=name)


def test_a_checkpoint_loads_without_the_store(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = AutoencoderTask.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)
    assert again.hparams.width == 16 and float(again.signal_variance) > 0
    for name, tensor in task.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.cpu()), name


def test_shapes_are_compared_in_the_quantity_of_their_signals(tmp_path):
    options = {"quantity": "sdf", "coordinates": 3, "channels": 1, "options": {"clamp": 0.1}}
    shapes = write_store(tmp_path / "shapes", num=24, in_features=3, source=options)
    form = WeightStore.open(shapes).form
    assert form.is_shape and (form.quantity, form.value_range) == ("sdf", (-0.1, 0.1))
    task, trainer = fit(shapes, tmp_path / "run", epochs=1)
    (found,) = trainer.test(task, trainer.datamodule, verbose=False)
    assert found["test_psnr"] > 0
    (batch,) = WeightStore.open(shapes).batches(100, split="test")
    values = task._signal.values(batch.weights, task._signal.fixed_points())
    assert float(values.abs().max()) == pytest.approx(0.1)  # far from a surface all are cut


def test_pictures_can_be_compared_by_a_classifier(store, tmp_path):
    generator = torch.Generator().manual_seed(0)
    pictures = LabelledPictures(torch.rand(16, 1, *GRID, generator=generator), torch.arange(16) % 2)
    options = ClassifierOptions(width=2, num_epochs=1, num_steps=2)
    folder = kept_classifier(pictures, pictures, ("a", "b"), tmp_path / "kept", options)
    weights = {"weight_loss": 0.5, "signal_loss": 2.0, "perceptual_loss": 3.0, "kl_weight": 0.0}
    task, trainer = fit(store, tmp_path / "run", epochs=1, perceptual=str(folder), **weights)
    found = trainer.callback_metrics
    expected = 0.5 * found["train_weight"] + 2.0 * found["train_signal"] + 3.0 * found["train_perceptual"]
    torch.testing.assert_close(found["train_loss"], expected)
    assert float(found["train_perceptual"]) > 0
    assert not any("classifier" in name for name in task.state_dict())  # it is no part of what is saved


def test_shapes_cannot_be_compared_by_a_classifier_of_pictures(tmp_path):
    options = {"quantity": "sdf", "coordinates": 3, "channels": 1, "options": {"clamp": 0.1}}
    shapes = write_store(tmp_path / "shapes", num=24, in_features=3, source=options)
    with pytest.raises(UserError, match="perceptual is given for fields of shapes"):
        fit(shapes, tmp_path / "run", epochs=1, perceptual="nowhere")


def test_divergence_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 3, 2, generator=generator)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    fixed = torch.full_like(mean, -2.0)
    gap = divergence(mean, fixed) - divergence(torch.zeros_like(mean), fixed)
    torch.testing.assert_close(divergence(mean, None), gap)


@pytest.mark.parametrize(
    "options, wrong",
    [
        ({"width": 10, "heads": 4}, "width is 10.*a multiple of heads, which is 4"),
        ({"ema_decay": 1.0}, "ema_decay is 1"),
        ({"latent_tokens": 0}, "latent_tokens is 0"),
        ({"kl_weight": -1.0}, "kl_weight is -1"),
        ({"normalisation": "none"}, "normalisation is 'none'"),
        ({"weight_loss": 0.0, "signal_loss": 0.0}, "both 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, wrong):
    with pytest.raises(UserError, match=wrong):
        AutoencoderTask(**options)
