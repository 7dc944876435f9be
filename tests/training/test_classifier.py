"""The classifier task learns, is saved whole, and needs nothing but its folder."""

import lightning as L
import pytest
import torch

from wsrl.encoders.models import WeightClassifier
from wsrl.errors import UserError
from wsrl.training.classifier import ClassifierTask
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.weight_data import WeightDataModule


def fit(store, root, epochs=15, **options):
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=root,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        deterministic=True,
    )
    task = ClassifierTask(**{"hidden": (16,), "lr": 3e-2, "dropout": 0.0} | options)
    data = WeightDataModule(str(store), batch_size=8, num_workers=0)
    trainer.fit(task, datamodule=data)
    return trainer, task, data


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_lightning():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_store):
    """One trained task for all tests; none of them changes its parameters."""
    root = tmp_path_factory.mktemp("classifier")
    with quiet_lightning():
        return fit(make_store(root / "store", num=120), root)


def test_it_learns_what_separates_the_classes(trained):
    trainer, task, data = trained
    scores = trainer.test(task, datamodule=data, verbose=False)[0]
    assert scores["test_accuracy"] > 0.9
    assert trainer.callback_metrics["test_loss"] < 0.5


def test_the_exported_model_gives_the_same_logits(trained, tmp_path):
    _, task, data = trained
    task.export(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    model = WeightClassifier.from_pretrained(tmp_path / "model")
    batch = next(data.batches("test"))
    assert torch.equal(model(batch.weights), task.eval()(batch.weights))
    assert set(model.predict(batch.weights)) <= {"even", "odd"}


def test_the_checkpoint_rebuilds_the_task(trained):
    trainer, task, data = trained
    again = ClassifierTask.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    batch = next(data.batches("test"))
    assert torch.equal(again.eval()(batch.weights), task.eval()(batch.weights))


def test_the_same_seed_gives_the_same_model(tmp_path, make_store):
    store = make_store(tmp_path / "store", num=40)
    states = [fit(store, tmp_path / str(run), epochs=2)[1].state_dict() for run in range(2)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_damaged_model_is_named(tmp_path, trained):
    trained[1].export(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="does not hold a classifier over weights"):
        WeightClassifier.from_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="does not hold a classifier over weights"):
        WeightClassifier.from_pretrained(tmp_path)
