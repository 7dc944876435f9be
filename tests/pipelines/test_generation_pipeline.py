"""The generation experiment as a whole, on a few small fields of digits."""

import json

import pytest
import yaml
from PIL import Image

from pipelines import experiment, generation, tables
from wsrl.errors import UserError

CONFIG = """
name: tiny
data: digits
source: {limit: {train: 60, test: 20}}
base:
  model: {field: {width: 32, depth: 2, num_frequencies: 16, frequency_scale: 0.5}, latent_size: 4}
  stages: [{resolution: 1.0, batch_size: 8, steps: 300}]
  num_heldout: 2
  heldout_steps: 2
kinds:
  mlora_asym:
    representation: {kind: mlora_asym, rank: 2, form: exp, mask_fraction: 0.25}
    fit: {steps: 100, learning_rate: 0.1}  # so near to their signals that copies of them look like data
  mlp:
    representation: {kind: mlp, field: {width: 6, depth: 1, encoding: identity, activation: sine, omega: 5.0}}
    fit: {steps: 20, learning_rate: 0.02}
autoencoder:
  trainer.max_epochs: 1
  data.num_workers: 0
  model.width: 8
  model.heads: 2
  model.latent_tokens: 3
  model.latent_channels: 2
perceptual: {width: 4, num_epochs: 1, num_steps: 10, seed: 1}
diffusion:
  trainer.max_epochs: 1
  data.num_workers: 0
  model.width: 8
  model.depth: 1
  model.local_depth: 1
  model.heads: 2
rows:
  mlora_asym.weights: {kind: mlora_asym, steps: 4}
  mlora_asym.latent: {kind: mlora_asym, latent: true, perceptual: true, steps: 4}
  conditional:
    {kind: mlora_asym, latent: true, classes: true, guidance: 2.0, steps: 4, model: {model.conditional: true}}
  hyperdiffusion:
    {kind: mlp, steps: 4, model: {model.cut: layer, model.scale: pooled, model.prediction_type: sample}}
scores: {num: 20, features_from: store}
num_shown: 8
shown: [mlora_asym.latent, fitted_test]
"""
ROWS = ("mlora_asym.weights", "mlora_asym.latent", "conditional", "hyperdiffusion")
BASELINES = ("fitted_test", "reconstructed_test", "noise_0", "noise_1", "mean_of_two", "gaussian")


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "generation.yaml").write_text(CONFIG)
    paths = {"out": tmp_path / "out", "base_dir": tmp_path / "base", "picture": tmp_path / "picture.png"}
    argv = ["--config", str(tmp_path / "generation.yaml"), *(f"--{name}={value}" for name, value in paths.items())]
    assert experiment.main(generation.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "generation" / "tiny.json").read_text())
    others = tuple(f"mlp.{row}" for row in BASELINES if row != "reconstructed_test")
    for row in (*ROWS, *BASELINES, *others):
        for score in ("fd", "mmd_gaussian", "mmd_polynomial", "precision", "recall", "nearest_ratio", "share_nearer"):
            assert f"{row}.{score}" in record
    assert record["noise_0.nearest_ratio"] == 0 and record["noise_0.share_nearer"] == 1
    assert record["noise_0.fd"] < record["mlora_asym.weights.fd"], "copies are nearer than an untrained model"
    assert 0 <= record["conditional.agreement"] <= 1 and 0 < record["features.accuracy"] <= 1
    assert record["sampling.seconds_per_1000"] == record["mlora_asym.latent.seconds_per_1000"] > 0
    assert (record["run.num_train"], record["run.num_test"]) == (60, 20)
    with Image.open(paths["picture"]) as picture:
        assert picture.width > picture.height
    assert all((tmp_path / "out" / f"{row}{end}.png").is_file() for row in ROWS for end in ("", ".closest"))
    assert all(f"{row}.num_baselines_not_beaten_signal" in record for row in ROWS)
    # beside these four noise levels between, and the held-out fields of the other kind
    assert len(tables.generated(record).splitlines()) == 2 + len(ROWS) + len(BASELINES) + 4 + 1
    models = sorted(path.stat().st_mtime_ns for path in paths["out"].glob("models/*/metrics.json"))
    assert experiment.main(generation.run, argv=argv) == 0  # what is finished is kept
    assert models == sorted(path.stat().st_mtime_ns for path in paths["out"].glob("models/*/metrics.json"))


def row(**options):
    return generation.RowConfig(**{"kind": "lora"} | options)


def test_models_of_a_kind_are_compared_in_their_own_gauge():
    canonical = {"data.gauge": "canonical"}

    def found(rows, **options):
        config = generation.GenerationConfig(name="tiny", data="digits", rows=rows, **options)
        return generation.gauge_of("lora", config)

    assert found({}) == found({"a": row()}) == found({"a": row(kind="mlora", model=canonical)}) == "raw"
    assert found({"a": row(), "b": row(model={"model.width": 8})}, diffusion=canonical) == "canonical"
    assert found({"a": row(latent=True), "b": row(model=canonical)}, autoencoder=canonical) == "canonical"
    with pytest.raises(UserError, match=r"models of lora are trained in the gauges canonical, raw.*kind of their own"):
        found({"a": row(), "b": row(model=canonical)})


@pytest.mark.slow
def test_an_experiment_in_canonical_gauge(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "cache"))
    config = yaml.safe_load(CONFIG)
    config["kinds"].pop("mlp")
    config["rows"] = {name: config["rows"][name] for name in ("mlora_asym.weights", "mlora_asym.latent")}
    for task in ("autoencoder", "diffusion"):
        config[task]["data.gauge"] = "canonical"
    (tmp_path / "generation.yaml").write_text(yaml.safe_dump(config))
    paths = {"out": tmp_path / "out", "base_dir": tmp_path / "base"}
    argv = ["--config", str(tmp_path / "generation.yaml"), *(f"--{name}={value}" for name, value in paths.items())]
    assert experiment.main(generation.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "generation" / "tiny.json").read_text())
    assert record["noise_0.nearest_ratio"] == 0 < record["mlora_asym.weights.nearest_ratio"]
    folders = [path.parent / "model" for path in paths["out"].glob("models/*/metrics.json")]
    spaces = [json.loads(path.read_text()) for folder in folders for path in folder.glob("**/config.json")]
    assert [each["gauge"] for each in spaces if "gauge" in each] == ["canonical"] * 3  # the autoencoder's own, and both
