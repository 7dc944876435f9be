"""The regressor task learns a metric, scores it rightly, is saved whole, and refuses what cannot be learned."""

import lightning as L
import pytest
import torch
from scipy.stats import kendalltau

from wsrl.encoders.models import WeightClassifier, WeightRegressor
from wsrl.errors import UserError
from wsrl.fields.layout import Layout, TensorSpec
from wsrl.fitting.engine import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.regressor import RegressorTask, regression_scores
from wsrl.training.weight_data import WeightDataModule

LAYOUT = Layout(
    (TensorSpec(name="weight", shape=(3, 4), axes=("neurons", None), group="layer", token_axis=0),)
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_lightning():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Fields whose metric ``mass`` is a sum of squares, and missing for some; ``flat`` never varies."""
    directory = tmp_path_factory.mktemp("regressor") / "store"
    create_or_resume(
        directory, layout=LAYOUT, representation={"kind": "synthetic"}, base_sha256=None, source={"name": "synthetic"},
        fit={}, num_signals=400, num_shards=1, label_names=(),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with ShardWriter(directory, 0) as writer:
        rows = []
        for index in writer.indices:
            weight = torch.randn(3, 4, generator=generator)
            mass = float("nan") if index % 7 == 3 else 20 + 3 * float(weight.sum())
            split = "test" if index % 4 == 0 else "train"
            metrics = {"mass": mass, "flat": 1.0}
            rows.append(
                FitResult(index=index, id=f"s/{index}", weights={"weight": weight}, metrics=metrics, split=split)
            )
        writer.write_segment(rows)
        writer.finish()
    finalize(directory)
    return directory


def fit(store, root, epochs=30, **options):
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=root, logger=False, enable_progress_bar=False,
        enable_model_summary=False, deterministic=True,
    )  # fmt: skip
    task = RegressorTask(**{"target": "mass", "hidden": (32,), "dropout": 0.0, "lr": 2e-2} | options)
    data = WeightDataModule(str(store), batch_size=16, num_workers=0)
    trainer.fit(task, datamodule=data)
    return trainer, task, data


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    with quiet_lightning():
        return fit(store, tmp_path_factory.mktemp("run"))


def test_it_learns_the_metric(trained):
    trainer, task, data = trained
    scores = trainer.test(task, datamodule=data, verbose=False)[0]
    assert scores["test_r2"] > 0.9 and scores["test_kendall"] > 0.8 and scores["test_mae"] < 2.0
    assert set(trainer.callback_metrics) >= {"test_loss", "test_mae"}


def test_scores_are_in_the_unit_of_the_metric_and_leave_missing_ones_out(trained):
    trainer, task, data = trained
    scores = trainer.test(task, datamodule=data, verbose=False)[0]
    batch = next(WeightDataModule(data.hparams.store, batch_size=1000).store.batches(1000, split="test"))
    known = batch.metrics["mass"].isfinite()
    assert 0 < int(known.sum()) < len(known)
    truth, predicted = batch.metrics["mass"][known].float(), task.eval()(batch.weights)[known].detach()
    assert scores["test_mae"] == pytest.approx(float((truth - predicted).abs().mean()), rel=1e-4)
    assert scores["test_r2"] == pytest.approx(
        float(1 - (truth - predicted).square().mean() / truth.var(correction=0)), abs=1e-4
    )
    assert scores["test_kendall"] == pytest.approx(kendalltau(truth.numpy(), predicted.numpy()).statistic, abs=1e-4)


def test_the_exported_model_and_the_checkpoint_predict_the_same(trained, tmp_path):
    trainer, task, data = trained
    task.export(tmp_path / "model")
    weights = next(data.batches("test")).weights
    expected = task.eval()(weights)
    model = WeightRegressor.from_pretrained(tmp_path / "model")
    assert model.target == "mass" and torch.equal(model(weights), expected)
    again = RegressorTask.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(again.eval()(weights), expected)
    with pytest.raises(UserError, match="holds a WeightRegressor, not a WeightClassifier"):
        WeightClassifier.from_pretrained(tmp_path / "model")


def test_a_metric_that_is_missing_or_never_varies_is_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"has no metric 'psnr'.* Allowed: flat, mass"):
        fit(store, tmp_path, target="psnr")
    with pytest.raises(UserError, match=r"flat does not vary.* flat, mass"):
        fit(store, tmp_path, target="flat")


def test_scores_of_known_cases():
    target = torch.tensor([0.0, 1.0, 2.0, 3.0])
    perfect = {"loss": 0.0, "mae": 0.0, "r2": 1.0, "kendall": pytest.approx(1.0)}
    assert regression_scores(target, target) == perfect
    constant = regression_scores(torch.full((4,), 1.5), target)
    assert constant["r2"] == 0.0 and constant["kendall"] == 0.0 and constant["mae"] == 1.0
    assert regression_scores(-target, target)["kendall"] == pytest.approx(-1.0)
    assert regression_scores(torch.tensor([1.0]), torch.tensor([2.0])) == {
        "loss": 1.0, "mae": 1.0, "r2": 0.0, "kendall": 0.0,
    }  # fmt: skip
