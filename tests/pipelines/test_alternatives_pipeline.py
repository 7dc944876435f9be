"""The experiment on the adapter's alternatives as a whole, on a few small fields of digits."""

import json

import pytest

from pipelines import alternative_tables, alternatives, experiment
from wsrl.errors import UserError
from wsrl.fields import RepresentationConfig

CONFIG = """
name: tiny
data: digits
source: {limit: {train: 60, test: 45}}
num_validation: 20
num_swept: 4
num_timed: 4
base: &base
  model:
    field: {width: 8, depth: 2, num_frequencies: 4}
    latent_size: 4
    mapping_width: 8
  stages: [{resolution: 1.0, batch_size: 8, steps: 60}]
  num_heldout: 2
  heldout_steps: 2
bases:
  longer: {<<: *base, model: {field: {width: 8, depth: 2, num_frequencies: 4}, latent_size: 12, mapping_width: 8}}
rows:
  adapter:
    representation: &adapter {kind: mlora_asym, rank: 2}
    fit: {steps: 40}
    learning_rates: [0.0001, 0.1]
  latent: {latent: true, fit: {steps: 40, learning_rate: 0.1, gradient: autograd}}
  longer: {base: longer, latent: true, fit: {steps: 40, learning_rate: 0.1, gradient: autograd}}
  both: {representation: *adapter, latent: true, fit: {steps: 40, learning_rate: 0.1, gradient: autograd}}
  meta: {representation: *adapter, meta: {inner_steps: 2, steps: 5, batch_size: 4, inner_rate: 0.1}}
scores: {num: 40, references: 60}
"""


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "alternatives.yaml").write_text(CONFIG)
    argv = ["--config", str(tmp_path / "alternatives.yaml"), "--out", str(tmp_path / "out")]
    assert experiment.main(alternatives.run, argv=argv) == 0
    path = tmp_path / "records" / "representations" / "alternatives.json"
    record = json.loads(path.read_text())
    # Every row has every score on both parts, which do not overlap.
    rows = ("adapter", "latent", "longer", "both", "meta")
    for row in rows:
        assert record[f"tiny.{row}.validation.num"] == 20 and record[f"tiny.{row}.test.num"] == 25
        for key in ("psnr", "psnr_5th", "fd", "recall", "precision", "logistic", "one_nn"):
            assert f"tiny.{row}.validation.{key}" in record and f"tiny.{row}.test.{key}" in record
        assert record[f"tiny.{row}.ms_per_field"] > 0
    assert [record[f"tiny.{row}.num_trainable"] for row in rows] == [56, 4, 12, 60, 56]
    assert [record[f"tiny.{row}.steps"] for row in rows] == [40, 40, 40, 40, 2]
    # The pictures are nearer to real ones than any fields; the better rate of the sweep was taken.
    assert all(record["tiny.pixels.test.fd"] < record[f"tiny.{row}.test.fd"] for row in rows)
    assert record["tiny.adapter.learning_rate"] >= 0.1
    assert record["tiny.adapter.test.psnr"] > record["tiny.sweep.adapter.0.0001"] + 1
    assert "tiny.adapter.ms_per_field_autograd" in record and "tiny.latent.ms_per_field_autograd" not in record
    table = alternative_tables.alternatives(record)
    assert len(table.splitlines()) == 2 + len(rows) + 1 and table.splitlines()[2].startswith("| tiny.pixels | 64 |")
    # What is finished is kept.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*") if "parts" not in file.name}
    assert experiment.main(alternatives.run, argv=argv) == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}
    again = json.loads(path.read_text())
    assert {k: v for k, v in again.items() if ".run." not in k} == {k: v for k, v in record.items() if ".run." not in k}


def test_a_row_of_an_unknown_base_is_refused():
    rows = {"latent": alternatives.Alternative(base="other", latent=True)}
    with pytest.raises(UserError, match=r"rows use the bases \['other'\]"):
        alternatives.AlternativesConfig(name="x", data="digits", rows=rows)


def test_a_row_of_nothing_is_refused():
    with pytest.raises(UserError, match="neither an adapter nor a latent"):
        alternatives.Alternative()
    assert alternatives.Alternative(representation=RepresentationConfig()).meta is None
