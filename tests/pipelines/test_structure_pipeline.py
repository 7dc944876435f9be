"""The structure experiment as a whole, on a few small fields of digits."""

import json

import pytest
from PIL import Image

from pipelines import analysis_tables, experiment, structure

CONFIG = """
name: tiny
data: digits
source: {limit: {test: 5}}
num: 4
base_source: {limit: {train: 20, test: 2}}
base:
  model:
    field: {width: 8, depth: 2, num_frequencies: 4}
    latent_size: 4
    mapping_width: 8
  stages: [{resolution: 1.0, batch_size: 8, steps: 10}]
  num_heldout: 2
  heldout_steps: 2
fit: {steps: 30, batch_size: 4}
lambdas: [0.0, 1.0]
num_points: 5
kinds:
  mlp:
    representation: {kind: mlp, field: {width: 6, depth: 2, encoding: identity, activation: sine, omega: 4.0}}
    learning_rate: 0.05
  mlora_asym: {representation: {kind: mlora_asym, rank: 2}, learning_rate: 0.1}
"""


def test_the_table_shows_what_a_record_has():
    raw = {f"lora.lambda_{d}.{key}": 0.5 for d in (0.1, 0.5, 1) for key in ("cosine", "overlap", "barrier_relative")}
    table = analysis_tables.structure(raw, raw).splitlines()
    assert "cosine of BA" not in table[0] and table[2].startswith("| lora | 0.50 / 0.50 / 0.50 | 0.5 / 0.5 / 0.5 |")
    measured = raw | {"lora.lambda_1.cosine_ba": 0.25, "lora.random.cosine": -0.1, "lora.random.overlap": 0.2}
    measured |= {"lora.random.overlap_chance": 0.06, "lora.random.overlap_others": 0.1}
    measured |= {"run.parts.fits.lora.lambda_1.seconds": 3.0}
    head, _, row = analysis_tables.structure(measured, raw).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | ")))
    assert cells["cosine, Fashion-MNIST"] == "0.50 / 0.50 / 0.50 / -0.10"
    assert cells["cosine of BA, Fashion-MNIST"] == " /  / 0.25"
    overlap = "overlap (chance; other signals)"
    assert cells[f"{overlap}, Fashion-MNIST"] == "0.50 / 0.50 / 0.50 / 0.20 (0.06; 0.10)"
    assert cells[f"{overlap}, solids"] == "0.50 / 0.50 / 0.50"


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    (tmp_path / "structure.yaml").write_text(CONFIG)
    paths = {"base_dir": tmp_path / "base", "out": tmp_path / "out", "picture": tmp_path / "figure.png"}
    argv = ["--config", str(tmp_path / "structure.yaml"), *(f"--{name}={value}" for name, value in paths.items())]
    assert experiment.main(structure.run, argv=argv) == 0
    path = tmp_path / "records" / "structure" / "tiny.json"
    record = json.loads(path.read_text())
    for kind in ("mlp", "mlora_asym"):
        assert record[f"{kind}.lambda_0.cosine"] == pytest.approx(1)
        assert record[f"{kind}.lambda_0.barrier"] == 0 < record[f"{kind}.lambda_1.barrier"]
        assert record[f"{kind}.lambda_1.cosine_low"] <= record[f"{kind}.lambda_1.cosine"] < 0.95
        assert record[f"{kind}.lambda_1.num"] == record[f"{kind}.random.num"] == 4
        assert abs(record[f"{kind}.random.cosine_start"]) < 0.5 and f"{kind}.random.barrier_high" in record
        assert f"{kind}.lambda_1.overlap_others" in record and f"{kind}.random.overlap_chance" in record
    for row in ("lambda_0", "lambda_1", "random"):
        for name in ("cosine_ba", "cosine_canonical", "barrier_ba", "barrier_ba_relative", "psnr_path_ba"):
            assert f"mlora_asym.{row}.{name}_low" in record and f"mlp.{row}.{name}" not in record
    assert record["mlora_asym.lambda_0.cosine_ba"] == pytest.approx(1)
    with Image.open(paths["picture"]) as picture:
        assert picture.width > picture.height
    fits = {path: path.stat().st_mtime_ns for path in paths["out"].glob("*/*.safetensors")}
    assert len(fits) == 8 and experiment.main(structure.run, argv=argv) == 0  # what is finished is kept
    assert fits == {path: path.stat().st_mtime_ns for path in paths["out"].glob("*/*.safetensors")}
    again = json.loads(path.read_text())
    same = [{k: v for k, v in each.items() if "lambda" in k or ".random." in k} for each in (again, record)]
    assert same[0] == same[1]
    assert (
        experiment.main(structure.run, argv=[*argv, "--fit.steps", "31"]) == 0
    )  # but not where another configuration is asked for
    assert len(list(paths["out"].glob("*/*.safetensors"))) == 16
