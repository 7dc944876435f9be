"""Models over weights in canonical gauge: they tell a field from another, whatever factors it comes in, and say so."""

import json

import lightning as L
import pytest
import torch
from contracts import tiny_representation

from wsrl.diffusion.pipeline import load_pipeline
from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.encoders.editors import WeightEditor, build_editor
from wsrl.encoders.models import WeightClassifier
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.registry import ENCODERS
from wsrl.errors import UserError
from wsrl.evaluation.features import product_features, stored_weights, weight_features
from wsrl.evaluation.generation_scores import score_generation
from wsrl.evaluation.references import GenerationOptions
from wsrl.evaluation.retrieval import nearest_fields
from wsrl.fields.gauge import factor_pairs
from wsrl.store import FitResult, WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize
from wsrl.training.augmentation import AugmentConfig
from wsrl.training.autoencoder_task import AutoencoderTask
from wsrl.training.classifier import ClassifierTask
from wsrl.training.diffusion import DiffusionTask
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.run_folder import _difference
from wsrl.training.weight_data import WeightDataModule

TRAINER = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
DENOISER = {"width": 16, "depth": 1, "local_depth": 1, "heads": 2, "warmup_steps": 2}
AUTOENCODER = {"latent_tokens": 2, "latent_channels": 3, "width": 16, "depth": 1, "decoder_depth": 1, "heads": 2}
# Rounding of factors that random matrices have moved, over the gaps of singular values and the deviations.
CLOSE = 2e-3
NUM = 40


def in_another_gauge(layout, weights, seed):
    """The same fields ``(N, *shape)``, each in a random gauge of its own."""
    generator, moved = torch.Generator().manual_seed(seed), dict(weights)
    for pair in factor_pairs(layout):
        down, up = weights[pair.down.name].double(), weights[pair.up.name].double()
        matrix = torch.randn(len(up), up.shape[-1], up.shape[-1], generator=generator).double()
        matrix = matrix + 2 * torch.eye(up.shape[-1]) * matrix.det().sign()[:, None, None]
        moved[pair.down.name] = torch.linalg.solve(matrix, down).float()
        moved[pair.up.name] = (up @ matrix).float()
    return moved


def fields(representation, num=NUM):
    """Two classes of fields about two products, each field in the gauge of its fit."""
    generator = torch.Generator().manual_seed(0)
    ends = {spec.name: torch.randn(2, *spec.shape, generator=generator) for spec in representation.layout}
    found = {
        spec.name: ends[spec.name][torch.arange(num) % 2] + 0.1 * torch.randn(num, *spec.shape, generator=generator)
        for spec in representation.layout
    }
    return found


@pytest.fixture(scope="module")
def representation():
    return tiny_representation("lora", rank=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory, representation):
    return write(tmp_path_factory.mktemp("gauge") / "store", representation)


def write(path, representation):
    """A finished store of fields in random gauges."""
    layout = representation.layout
    weights = fields(representation)
    if representation.base is not None:
        weights = in_another_gauge(layout, weights, seed=1)
    create_or_resume(
        path,
        layout=layout,
        representation=representation.to_dict(),
        base_sha256=representation.base and representation.base.sha256(),
        source={"name": "toy", "grid": [4, 6], "channels": 1},
        fit={},
        num_signals=NUM,
        num_shards=1,
        label_names=("even", "odd"),
        save_base=representation.base and representation.base.save_pretrained,
    )
    with ShardWriter(path, 0) as writer:
        rows = [
            FitResult(
                index=i,
                id=f"toy/{i:02}",
                weights={name: tensor[i] for name, tensor in weights.items()},
                label=("even", "odd")[i % 2],
                split="test" if i % 8 > 5 else "train",
            )
            for i in range(NUM)
        ]
        writer.write_segment(rows)
        writer.finish()
    finalize(path)
    return path


def train(task, store, root, gauge="canonical", epochs=2):
    data = WeightDataModule(str(store), batch_size=8, num_workers=0, gauge=gauge)
    with quiet_lightning():
        L.seed_everything(0, verbose=False)
        trainer = L.Trainer(max_epochs=epochs, default_root_dir=root, enable_checkpointing=False, **TRAINER)
        trainer.fit(task, datamodule=data)
    return data


def pair_of(store):
    """The test fields of a store, and the same ones in other gauges."""
    with WeightStore.open(store) as opened:
        weights = stored_weights(opened, (opened.splits() == "test").nonzero()[0])
        return weights, in_another_gauge(opened.layout, weights, seed=2)


def test_a_classifier_reads_the_field_and_not_its_factors(store, tmp_path):
    task = ClassifierTask(hidden=(16,), lr=3e-2, dropout=0.0)
    train(task, store, tmp_path, epochs=15)
    task.export(tmp_path / "model")
    model, (first, second) = WeightClassifier.from_pretrained(tmp_path / "model"), pair_of(store)
    assert model.statistics.gauge == "canonical"
    assert torch.equal(model(first), task.eval()(first))
    torch.testing.assert_close(model(first), model(second), rtol=0, atol=CLOSE)
    names = model.predict(second)
    assert names == ["even", "odd"] * (len(names) // 2)


@pytest.mark.parametrize("normalisation", ["entry", "tensor"])
@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_every_encoder_takes_the_gauge(store, tmp_path, kind, normalisation):
    task = ClassifierTask(encoder=kind, options={"normalisation": normalisation}, lr=1e-2)
    train(task, store, tmp_path)
    task.export(tmp_path / "model")
    model, (first, second) = WeightClassifier.from_pretrained(tmp_path / "model"), pair_of(store)
    assert model.statistics.gauge == "canonical" and torch.equal(model(first), task.eval()(first))
    torch.testing.assert_close(model(first), model(second), rtol=0, atol=10 * CLOSE)


def test_a_model_of_raw_weights_reads_the_factors(store, tmp_path):
    task = ClassifierTask(hidden=(16,), lr=3e-2, dropout=0.0)
    train(task, store, tmp_path, gauge="raw")
    task.export(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoder"].pop("gauge") == "raw"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))  # as earlier models were saved
    model, (first, second) = WeightClassifier.from_pretrained(tmp_path / "model"), pair_of(store)
    assert model.statistics.gauge == "raw" and torch.equal(model(first), task.eval()(first))
    assert (model(first) - model(second)).abs().max() > 0.1


def test_a_checkpoint_keeps_the_gauge(store, tmp_path):
    task = ClassifierTask(hidden=(16,), lr=3e-2, dropout=0.0)
    train(task, store, tmp_path)
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    again = ClassifierTask(hidden=(16,), lr=3e-2, dropout=0.0)
    again.on_load_checkpoint(checkpoint)
    assert again.model.statistics.gauge == "canonical"


def test_diffusion_lives_in_the_gauge_and_is_scored_in_it(store, tmp_path, representation):
    task = DiffusionTask(**DENOISER)
    data = train(task, store, tmp_path)
    with quiet_lightning():
        pipeline = load_pipeline(tmp_path / "model")
    assert pipeline.space.statistics.gauge == "canonical"
    first, second = pair_of(store)
    torch.testing.assert_close(pipeline.space.encode(first), pipeline.space.encode(second), rtol=0, atol=CLOSE)
    decoded = pipeline.space.decode(pipeline.space.encode(first))
    expected = representation.canonical(first)
    for name, tensor in decoded.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)
    pipeline.set_progress_bar_config(disable=True)
    scores = score_generation(pipeline, data.store, GenerationOptions(num=6, steps=2, baselines=True))
    for weights in (scores.weights, scores.comparison.fields.train, scores.comparison.fields.heldout):
        again = representation.canonical(weights)
        assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert scores.metrics["nearest_ratio"] > 0
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    again = DiffusionTask(**DENOISER)
    again.on_load_checkpoint(checkpoint)
    assert again.space.statistics.gauge == "canonical"


def test_an_autoencoder_keeps_the_gauge_and_diffusion_follows_it(store, tmp_path):
    for gauge in ("canonical", "raw"):
        train(AutoencoderTask(**AUTOENCODER), store, tmp_path / gauge, gauge=gauge)
    found = open_autoencoder(tmp_path / "canonical")
    assert found.statistics.gauge == "canonical"
    first, second = pair_of(store)
    torch.testing.assert_close(found.encode(first), found.encode(second), rtol=0, atol=10 * CLOSE)
    task = DiffusionTask(autoencoder=str(tmp_path / "canonical"), **DENOISER)
    train(task, store, tmp_path / "latent", gauge="raw")
    assert task.space.statistics.gauge == "canonical"
    task = DiffusionTask(autoencoder=str(tmp_path / "raw"), **DENOISER)
    with pytest.raises(UserError, match=r"data.gauge is 'canonical', and the autoencoder reads raw.*leave out"):
        train(task, store, tmp_path / "other")
    config = tmp_path / "raw" / "model" / "config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "gauge"}))
    assert open_autoencoder(tmp_path / "raw").statistics.gauge == "raw"


def test_an_editor_writes_in_the_gauge_that_it_reads(store, tmp_path, representation):
    first, second = pair_of(store)
    statistics = WeightStatistics.from_batches(representation.layout, [first], "canonical")
    editor = build_editor("mlp", {"hidden": (8,)}, statistics).eval()
    editor.save_pretrained(tmp_path / "editor")
    again = WeightEditor.from_pretrained(tmp_path / "editor")
    for name, tensor in again(first).items():
        assert torch.equal(tensor, editor(first)[name])
        torch.testing.assert_close(tensor, again(second)[name], rtol=0, atol=CLOSE)


def test_what_the_gauge_cannot_be_is_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"data.gauge is 'balanced'.*raw, canonical"):
        WeightDataModule(str(store), gauge="balanced")
    permuted = ClassifierTask(augment=AugmentConfig(permute=True))
    with pytest.raises(UserError, match=r"augment.permute is on, and data.gauge is canonical.*leave out one"):
        train(permuted, store, tmp_path / "permuted")
    plain = tiny_representation("mlp")
    other = write(tmp_path / "mlp", plain)
    with pytest.raises(UserError, match=r"data.gauge is 'canonical'.*without factors"):
        train(ClassifierTask(hidden=(16,)), other, tmp_path / "other")


def test_a_run_from_before_there_was_a_gauge_goes_on():
    record = {"command": "wsrl train diffusion", "config": {"model": {}, "data": {"batch_size": 8}}}
    raw, other = ({"model": {}, "data": {"batch_size": 8, "gauge": gauge}} for gauge in ("raw", "canonical"))
    assert _difference(record, "diffusion", raw, None) is None
    assert "data.gauge is None there and 'canonical' here" in _difference(record, "diffusion", other, None)


def test_features_and_neighbours_of_the_same_fields_in_other_gauges(store, representation):
    with WeightStore.open(store) as opened:
        rows = torch.arange(NUM).numpy()
        canonical, raw = (weight_features(opened, rows, gauge) for gauge in ("canonical", "raw"))
        weights = stored_weights(opened, rows)
        expected = representation.canonical(weights)
        torch.testing.assert_close(canonical, opened.layout.flatten(expected), rtol=0, atol=1e-5)
        assert (canonical - raw).abs().max() > 0.1
        # products: random sums whose distances are those of the products themselves, in any gauge
        sums = product_features(opened, rows, seed=0, num=4000)
        flat = torch.cat(
            [(weights[p.up.name] @ weights[p.down.name]).flatten(1) for p in factor_pairs(opened.layout)], 1
        )
        found, exact = (torch.cdist(each, each)[0, 1:] for each in (sums, flat))
        assert ((found / exact) - 1).abs().max() < 0.15
        assert product_features(opened, rows, seed=0).shape == (NUM, opened.layout.num_trainable)
        # the nearest fields are of the class where the gauge is out of the way
        own = [nearest_fields(opened, row, 5, gauge="canonical").rows % 2 == row % 2 for row in range(10)]
        assert all(each.all() for each in own)
        raw_own = [nearest_fields(opened, row, 5).rows % 2 == row % 2 for row in range(10)]
        assert not all(each.all() for each in raw_own)
