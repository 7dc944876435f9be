"""The comparison of representations as a whole, on a few digits."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import experiment, representations
from pipelines.field_tables import readings, representations_unseen
from pipelines.field_tables import representations as representations_table
from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.source import training_indices
from wsrl.store import WeightStore

CONFIG = """
name: tiny
data: digits
source: {limit: {train: 60, test: 20}}
base_source: {limit: {train: 24, test: 4}}
base:
  model:
    field: {width: 8, depth: 2, num_frequencies: 4, frequency_scale: 0.5}
    latent_size: 4
    mapping_width: 8
    mapping_depth: 1
  stages: [{resolution: 1.0, batch_size: 8, steps: 60}]
  num_signals: 24
  num_heldout: 2
  heldout_steps: 2
fit: {steps: 30, batch_size: 8}
num_sweep: 6
unseen_steps: [5, 10]
num_scored: 10
curve_steps: [4, 30]
num_read_train: 30
num_read_test: 20
reference: mlora_asym
kinds:
  mlora_asym:
    representation: {kind: mlora_asym, rank: 2}
    learning_rates: [0.1, 0.2]
  mlp:
    representation: {kind: mlp, field: {width: 8, depth: 2, encoding: identity, activation: sine, omega: 3.0}}
    settings: {omega3: {field.omega: 3.0}, omega6: {field.omega: 6.0}}
    learning_rates: [0.02, 0.04]
"""


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    argv = ["--config", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out")]
    argv += ["--picture", str(tmp_path / "curve.png")]
    assert experiment.main(representations.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "representations" / "tiny.json").read_text())
    for row in ("mlora_asym", "mlp", "mlora_asym.by_unseen", "mlp.by_unseen"):
        assert record[f"{row}.psnr_min"] < record[f"{row}.psnr_mean"] and record[f"{row}.num_failed"] == 0
        assert record[f"{row}.unseen_mean"] < record[f"{row}.psnr_mean"], "unseen pixels are harder"
    # Two base fields that differ, of which networks of their own know nothing; the mean is over both.
    means = [record[f"mlora_asym.base_{number}.psnr_mean"] for number in (0, 1)]
    assert means[0] != means[1] and np.mean(means) == pytest.approx(record["mlora_asym.psnr_mean"])
    assert "mlp.base_0.psnr_mean" not in record and record["run.num_bases"] == 2
    # The difference is that of the means, inside its interval; the reference has none to itself.
    for row in ("mlp", "mlp.by_unseen"):
        beside = row.replace("mlp", "mlora_asym")
        middle = record[f"{row}.psnr_mean"] - record[f"{beside}.psnr_mean"]
        assert record[f"{row}.difference.psnr"] == pytest.approx(middle)
        low, high = (record[f"{row}.difference.psnr_{end}"] for end in ("low", "high"))
        assert low < middle < high
    assert "mlora_asym.difference.psnr" not in record
    assert record["mlp.setting"] in ("omega3", "omega6") and record["mlp.by_unseen.steps"] in (5, 10)
    assert record["mlora_asym.curve.4.psnr"] < record["mlora_asym.curve.30.psnr"]
    assert 0 <= record["mlp.curve.30.logistic"] <= 1 and 0 <= record["pixels.one_nn"] <= 1
    # The tables say it all: a row for every kind, how much more one has than the other, and no more than there is.
    fits, unseen, read = (
        table(record).splitlines() for table in (representations_table, representations_unseen, readings)
    )
    assert len(fits) == len(unseen) == 4 and len(read) == 5
    of = {line.split(" | ")[0]: line for line in fits}
    assert "more than `mlora_asym`" in fits[0] and f"({record['mlp.difference.psnr_low']:+.2f} to" in of["| mlp"]
    assert f"| {means[0]:.2f} / {means[1]:.2f} |" in of["| mlora_asym"]
    assert f"{record['mlp.by_unseen.unseen_mean']:.2f}" in "".join(unseen)
    assert f"{record['mlp.curve.30.psnr']:.1f} dB: {record['mlp.curve.30.logistic']:.3f}" in "".join(read)
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.mode == "P"
    # What is finished is kept, whatever has come since.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json") if "parts" not in path.name}
    assert experiment.main(representations.run, argv=argv) == 0
    again = json.loads((tmp_path / "records" / "representations" / "tiny.json").read_text())
    assert {k: v for k, v in again.items() if "run." not in k} == {k: v for k, v in record.items() if "run." not in k}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_source_without_a_test_split_and_a_row_fitted_to_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    rows = CONFIG[: CONFIG.index("  mlp:")].replace("unseen_steps: [5, 10]", "num_unseen: 3").replace("[4, 30]", "[]")
    text = rows.replace("source: {limit: {train: 60, test: 20}}", "source: {split: train, limit: 60}", 1)
    text = text.replace("base_source: {limit: {train: 24, test: 4}}", "num_bases: 1\nnum_fits: 1")
    (tmp_path / "tiny.yaml").write_text(f"on_all: mlora_asym\nsheet: {tmp_path / 'sheet.png'}\n{text}")
    argv = ["--config", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out")]
    config = experiment.read_config(representations.run, argv)
    source = config.open()
    pictures = representations.Pictures.of(config, source)
    # Spread over everything that the base field did not see, in the order of the source.
    assert len(pictures.scored) == 10 and min(pictures.scored) >= 24 and max(pictures.scored) > 50
    assert not set(pictures.swept) & set(pictures.scored) and list(pictures.unseen) == list(pictures.scored)[:3]
    assert experiment.main(representations.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "representations" / "tiny.json").read_text())
    with WeightStore.open(tmp_path / "out" / "mlora_asym_all") as store:
        assert len(store) == record["mlora_asym.all.num"] == 60
        assert store.metrics("psnr").mean() == pytest.approx(record["mlora_asym.all.psnr_mean"])
        # The row and the store are the same fits.
        position = {store.id_of(row): row for row in range(len(store))}
        same = [store.metrics("psnr")[position[source.ids[index]]] for index in pictures.scored]
    assert np.mean(same) == pytest.approx(record["mlora_asym.psnr_mean"])
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 8 * 6, "pictures, fields and errors in six columns"


def test_pictures_for_one_thing_are_for_nothing_else():
    config = representations.RepresentationsConfig(
        name="x",
        data="digits",
        source={"limit": {"train": 60, "test": 20}},
        base=experiment.BaseTrainingConfig(num_signals=24),
        sweep_only=True,
        num_sweep=6,
        num_read_train=30,
    )
    source = config.open()
    pictures = representations.Pictures.of(config, source)
    names = {key: {source.ids[index] for index in getattr(pictures, key)} for key in ("swept", "read_train", "scored")}
    of_base = open_source("digits", limit={"train": 24, "test": 4})
    seen = {of_base.ids[index] for index in training_indices(of_base)}
    assert len(names["swept"]) == 6 and len(names["read_train"]) == 30
    assert not any(first & second for first in names.values() for second in names.values() if first is not second)
    assert not any(part & seen for part in names.values())


def test_too_few_pictures_are_refused():
    small = {"name": "x", "data": "digits", "source": {"limit": {"train": 60, "test": 20}}, "sweep_only": True}
    config = representations.RepresentationsConfig(**small, base=experiment.BaseTrainingConfig(num_signals=58))
    with pytest.raises(UserError, match="there are 2 pictures that the base fields did not see, for the sweep"):
        representations.Pictures.of(config, config.open())
    with pytest.raises(UserError, match="reference is 'mlora_asym'"):
        representations.RepresentationsConfig(name="x", data="digits")
