"""``wsrl train autoencoder`` and ``wsrl eval reconstruction --autoencoder``, on pictures and on shapes."""

import json

import numpy as np
import pytest
import trimesh

from wsrl import WeightStore
from wsrl.cli.main import main
from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.signals import open_source
from wsrl.signals.fidelity import psnr

SMALL = (
    "--model.width", "8", "--model.depth", "1", "--model.decoder_depth", "1", "--model.heads", "2",
    "--model.latent_tokens", "2", "--model.latent_channels", "3", "--model.num_points", "16",
    "--data.num_workers", "0", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu",
)  # fmt: skip
FEW_POINTS = "num_near: 500, num_uniform: 500, num_surface: 600, num_heldout: 1000"


def train(store, root, *more):
    words = ["train", "autoencoder", "--data.store", store, "--trainer.default_root_dir", root, *SMALL, *more]
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(digits_store, tmp_path_factory):
    root = tmp_path_factory.mktemp("run") / "run"
    assert train(digits_store, root) == 0
    return root


def evaluate(tmp_path, *arguments):
    out = tmp_path / "metrics.json"
    assert main(["eval", "reconstruction", *map(str, arguments), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_a_run_leaves_the_model_and_logs_errors_and_latents(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    names = ("weight_error", "signal_error", "psnr")
    assert {f"autoencoder.{part}_{name}" for part in ("val", "test") for name in names} <= metrics.keys()
    least, mean, most = (metrics[f"autoencoder.latent_std_{name}"] for name in ("min", "mean", "max"))
    assert 0 < least <= mean <= most
    assert "latent_std_mean" in (trained / "csv" / "metrics.csv").read_text()
    assert json.loads((trained / "run.json").read_text())["config"]["model"]["latent_tokens"] == 2
    assert open_autoencoder(trained).vector_size == 6


def test_pictures_are_scored_after_the_autoencoder_beside_the_stored_fields(digits_store, trained, tmp_path):
    metrics = evaluate(tmp_path, digits_store, "--autoencoder", trained)
    metrics = {name.removeprefix("reconstruction."): value for name, value in metrics.items()}
    store, network = WeightStore.open(digits_store), open_autoencoder(trained)
    rows = np.flatnonzero(store.splits() == "test")
    assert metrics["autoencoder_num"] == len(rows)
    assert metrics["autoencoder_fitted_psnr_mean"] == pytest.approx(metrics["test.psnr_mean"], abs=1e-3)
    source = open_source("digits", **store.manifest["source"]["options"])
    signal = source[int(store.indices[rows[3]])]
    stored = {name: tensor[None] for name, tensor in store[int(rows[3])].items()}
    values = store.representation.evaluate(network(stored), signal.coords)
    expected = float(psnr(values, signal.values[None], signal.form.value_range))
    assert metrics["autoencoder_psnr_min"] <= expected + 1e-3
    assert metrics["autoencoder_psnr_mean"] < metrics["autoencoder_fitted_psnr_mean"]


def test_shapes_are_scored_after_the_autoencoder_beside_the_stored_fields(tmp_path, monkeypatch):
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "cache"))
    for split, number in {"train": 8, "test": 2}.items():
        for i in range(number):
            path = tmp_path / "data" / split / "ball" / f"{i}.ply"
            path.parent.mkdir(parents=True, exist_ok=True)
            trimesh.creation.box((1, 1, 1 - 0.05 * i)).export(path)
    given = [str(tmp_path / "data"), "--source", f"{{{FEW_POINTS}}}", "--representation", "mlp", "--device", "cpu"]
    field = ["--representation.field", "{width: 16, depth: 2, encoding: identity, activation: sine, omega: 3.0}"]
    steps = ["--fit.steps", "150", "--fit.points_per_step", "500", "--fit.learning_rate", "0.02"]
    store = tmp_path / "store"
    assert main(["build", *given, *field, *steps, "--out", str(store)]) == 0
    assert train(store, tmp_path / "run") == 0
    coarse = ("--data", tmp_path / "data", "--resolution", 16, "--points", 300)
    metrics = evaluate(tmp_path, store, "--autoencoder", tmp_path / "run", *coarse)
    for name in ("num_shapes", "chamfer_l1_mean", "test.chamfer_l1_median", "iou_mean"):
        *path, last = name.split(".")
        assert f"reconstruction.{name}" in metrics
        assert f"reconstruction.{'.'.join([*path, 'autoencoder_' + last])}" in metrics
    assert metrics["reconstruction.num_shapes"] == metrics["reconstruction.autoencoder_num_shapes"] == 2
    assert metrics["reconstruction.iou_mean"] != metrics["reconstruction.autoencoder_iou_mean"]


def test_wrong_input_ends_in_a_message(digits_store, trained, make_store, tmp_path, refused):
    assert "holds no weight autoencoder" in refused("eval", "reconstruction", digits_store, "--autoencoder", tmp_path)
    other = make_store(tmp_path / "other", num=10)
    assert "another layout" in refused("eval", "reconstruction", other, "--autoencoder", trained)
    data = ("train", "autoencoder", "--data.store", digits_store)
    assert "encoder is 'mlp'" in refused(*data, "--model.encoder", "mlp")
    assert "latent_tokens is 0" in refused(*data, "--model.latent_tokens", "0")
