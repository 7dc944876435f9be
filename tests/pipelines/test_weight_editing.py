"""The editing experiment as a whole, on a few small fields of digits."""

import json

import pytest
from PIL import Image

from pipelines import experiment, weight_editing

CONFIG = """
name: tiny
data: digits
source: {limit: {train: 48, test: 8}}
num_train: 40
num_shown: 4
representation:
  kind: mlp
  start: random
  field: {width: 6, depth: 2, encoding: identity, activation: sine, omega: 4.0}
fit: {steps: 60, learning_rate: 0.05}
editors:
  mlp: {kind: mlp, options: {hidden: [8]}, training: {epochs: 2, batch_size: 8}}
  unf:
    kind: unf
    options: {channels: 4, depth: 2, num_frequencies: 2}
    training: {epochs: 30, batch_size: 8, learning_rate: 0.01}
"""


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    (tmp_path / "editing.yaml").write_text(CONFIG)
    paths = {"store": tmp_path / "fields", "out": tmp_path / "out", "picture": tmp_path / "small.png"}
    argv = ["--config", str(tmp_path / "editing.yaml"), *(f"--{name}={value}" for name, value in paths.items())]
    assert experiment.main(weight_editing.run, argv=argv) == 0
    path = tmp_path / "records" / "weight_editing" / "tiny.json"
    record = json.loads(path.read_text())
    assert (record["run.num_train"], record["run.num_test"]) == (40, 8)
    assert record["unf.mse"] < record["unchanged.mse"]
    assert record["unf.gain"] == pytest.approx(record["unchanged.mse"] / record["unf.mse"])
    assert record["unf.psnr"] > record["unchanged.psnr"]
    assert record["unf.equivariance_error"] < 1e-3 < record["mlp.equivariance_error"]
    with Image.open(paths["picture"]) as picture:
        assert picture.mode == "P" and picture.width > picture.height
    models = sorted(path.stat().st_mtime_ns for path in paths["out"].glob("*/model.safetensors"))
    assert experiment.main(weight_editing.run, argv=argv) == 0  # what is finished is kept
    assert models == sorted(path.stat().st_mtime_ns for path in paths["out"].glob("*/model.safetensors"))
    assert (
        json.loads((tmp_path / "records" / "weight_editing" / "tiny.json").read_text())["unf.mse"] == record["unf.mse"]
    )
