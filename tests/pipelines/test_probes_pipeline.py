"""The table of probes: the order of the paper, importance of parts, and the whole on a few digits."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import analysis_tables, experiment, probes
from pipelines.probe_scores import Scores, order_of, score_items
from wsrl.errors import UserError
from wsrl.evaluation.labelled_fields import LabelledFields
from wsrl.evaluation.protocol import Protocol, Spread

ADAPTER = "rank: 2, init_std: 0.5"
FIELD = "{width: 8, depth: 1, encoding: identity, activation: sine, omega: 5.0}"
CONFIG = f"""
name: tiny
data: digits
source: {{limit: {{train: 120, test: 60}}}}
base:
  model:
    field: {{width: 16, depth: 2, num_frequencies: 8}}
    latent_size: 4
  stages: [{{resolution: 1.0, batch_size: 16, steps: 60}}]
  num_heldout: 2
  heldout_steps: 2
kinds:
  mlora:
    representation: {{kind: mlora, {ADAPTER}}}
    fit: &fit {{steps: 30, learning_rate: 0.1}}
  lora:
    representation: {{kind: lora, rank: 2}}
    fit: *fit
  mlp:
    representation: {{kind: mlp, field: {FIELD}}}
    fit: *fit
main: mlora
variants:
  random_start:
    source: {{limit: {{train: 100, test: 50}}}}
    kinds:
      mlora:
        representation: {{kind: mlora, {ADAPTER}, start: random}}
        fit: *fit
readings: [canonical, products]
protocol: {{seeds: 2}}
label_counts: [1, 5]
important: [mlora]
processes: 2
importance_train: 60
importance_seeds: 1
mapped: [mlora, random_start.mlora]
num_mapped: 60
"""


def scores(*values):
    return Scores({name: Spread(values) for name in ("ari", "one_nn", "logistic")}, {}, {})


def test_order_comes_from_differences_seed_by_seed():
    rows = {"mlora": scores(0.9, 0.7), "lora": scores(0.8, 0.6), "mlp": scores(0.5, 0.4)}
    order = order_of(rows)
    assert order["order.ari.mlora_minus_lora"] == pytest.approx(0.1)
    assert order["order.ari.mlora_minus_lora_std"] == pytest.approx(0, abs=1e-9)  # though both rows vary by more
    assert order["order.logistic.confirmed"] == 1.0
    assert order_of(rows | {"lora": scores(0.2, 0.9)})["order.ari.confirmed"] == 0.0
    assert order_of({name: rows[name] for name in ("mlora", "mlp")}) == {}


def test_scores_survive_their_file():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = (generator.normal(size=(60, 3)) + 4 * labels[:, None]).astype(np.float32)
    items = LabelledFields(features, labels, np.arange(40), np.arange(40, 60), np.arange(60), ("a", "b"))
    row = score_items(items, Protocol(seeds=2), (1, 5))
    assert row.spreads["svm"].mean > 0.9 and row.spreads["ari"].mean > 0.9
    assert row.facts["precision_at_8"] > 0.9 and set(row.curve) == {1, 5}
    assert Scores.from_json(json.loads(json.dumps(row.to_json()))) == row
    entries = row.entries("mlp")
    assert entries["mlp.one_nn_seeds"] == 2 and "mlp.label_efficiency.5_std" in entries
    assert entries["mlp.precision_at_8.b"] > 0.9


def test_an_unknown_reading_is_refused():
    with pytest.raises(UserError, match=r"the reading 'weight' is unknown.*canonical, products"):
        probes.ProbesConfig(name="tiny", data="digits", readings=("weight",))


def test_the_table_has_a_row_for_each_reading_that_a_record_has():
    scored = {f"{row}.{score}": 0.5 for row in ("lora", "lora.products", "random_start.lora.canonical") for score in
              ("ari", "one_nn", "logistic")}  # fmt: skip
    table = analysis_tables.probes(scored, {}, {}, {}).splitlines()
    assert [line.split(" |")[0] for line in table[2:]] == [
        "| lora", "| lora, random starts, canonical", "| lora, products BA"
    ]  # fmt: skip
    assert table[2] == "| lora | 50.0 / 50.0 / 50.0 |  |  |  |"


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    (tmp_path / "probes.yaml").write_text(CONFIG)
    names = ("map_picture", "curve_picture", "importance_picture")
    paths = {name: tmp_path / f"{name}.png" for name in names}
    paths |= {"out": tmp_path / "out", "base_dir": tmp_path / "base"}
    argv = ["--config", str(tmp_path / "probes.yaml"), *(f"--{name}={value}" for name, value in paths.items())]
    assert experiment.main(probes.run, argv=argv) == 0
    path = tmp_path / "records" / "probes" / "tiny.json"
    record = json.loads(path.read_text())
    rows = ["mlora", "lora", "mlp", "pixels", "random_start.mlora", "random_start", "random_start.mlora.usual"]
    adapters = ("mlora", "lora", "random_start.mlora")
    rows += [f"{row}.{reading}" for row in adapters for reading in ("canonical", "products")]
    assert not any(key.startswith(("mlp.canonical", "mlp.products")) for key in record)
    for row in rows:
        for name in ("ari", "nmi", "silhouette", "one_nn", "knn", "logistic", "svm"):
            assert record[f"{row}.{name}_seeds"] == 2 and f"{row}.{name}_std" in record
        assert 0 <= record[f"{row}.precision_at_8"] <= 1 and f"{row}.label_efficiency.5" in record
    assert record["random_start.logistic"] == record["random_start.mlora.logistic"] < record["pixels.logistic"]
    assert record["random_start.mlora.num"] == 150 and record["mlora.num"] == 180 == 3 * record["run.num_test"]
    assert "mlora.importance.layers.0.down.alone" in record and "order.ari.confirmed" in record
    for name in names:
        with Image.open(paths[name]) as picture:
            assert picture.width > 400
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.json")}
    assert experiment.main(probes.run, argv=argv) == 0  # what is finished is kept
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items() if file.parent.name == "scores")
    again = json.loads(path.read_text())
    assert {key: again[key] for key in record if not key.startswith("run.")} == {
        key: record[key] for key in record if not key.startswith("run.")
    }
