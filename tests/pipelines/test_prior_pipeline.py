"""The experiment on priors as a whole, on a few small fields of digits."""

import json
from pathlib import Path

import pytest

from pipelines import experiment, prior

CONFIG = """
name: tiny
data: digits
source: {limit: {train: 60, test: 20}}
base:
  model:
    field: {width: 8, depth: 2, num_frequencies: 4}
    latent_size: 4
    mapping_width: 8
  stages: [{resolution: 1.0, batch_size: 8, steps: 10}]
  num_heldout: 2
  heldout_steps: 2
kinds:
  free: {representation: {kind: mlora_asym, rank: 2}, fit: {steps: 40, learning_rate: 0.1}}
  held: {representation: {kind: mlora_asym, rank: 2}, fit: {steps: 40, learning_rate: 0.1, prior_strength: 0.01}}
scores: {num: 40, references: 60}
num_timed: 4
chosen: held
test_source: {limit: {train: 60, test: 45}}
"""


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "prior.yaml").write_text(CONFIG)
    argv = ["--config", str(tmp_path / "prior.yaml"), "--out", str(tmp_path / "out")]
    assert experiment.main(prior.run, argv=argv) == 0
    path = Path(tmp_path / "records" / "representations" / "prior.json")
    record = json.loads(path.read_text())
    free, held = ({key: record[f"tiny.{row}.{key}"] for key in ("psnr", "std")} for row in ("free", "held"))
    assert held["psnr"] < free["psnr"] and held["std"] < free["std"]
    for key in ("fitted_fd", "fitted_recall", "gaussian_fd", "logistic", "one_nn", "r2_from_signal", "ms_per_field"):
        assert f"tiny.held.{key}" in record and f"tiny.free.{key}" in record
    assert record["tiny.held.num_heldout"] == 20 and record["tiny.test.num_heldout"] == 25
    scores = (tmp_path / "out" / "held.scores.json").stat().st_mtime_ns
    assert experiment.main(prior.run, argv=argv) == 0  # what is finished is kept
    assert scores == (tmp_path / "out" / "held.scores.json").stat().st_mtime_ns
    again = json.loads(path.read_text())
    assert {key: value for key, value in again.items() if ".run." not in key} == {
        key: value for key, value in record.items() if ".run." not in key
    }


def test_a_wrong_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="chosen is 'best'"):
        prior.PriorConfig(name="x", data="digits", chosen="best")
