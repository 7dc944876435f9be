"""``wsrl base``: what it leaves, its defaults, and the folders it does not touch."""

import json

import yaml
from tiny import TINY_BASE

from wsrl.cli.main import main
from wsrl.fields.modulated_base import BaseField


def test_a_base_field_its_record_and_its_metrics(tiny_base):
    base = BaseField.from_pretrained(tiny_base)
    assert (base.in_features, base.out_features, base.config.field.width) == (2, 1, 8)
    metrics = json.loads((tiny_base / "metrics.json").read_text())
    assert metrics["base.train_psnr_mean"] > 0 and metrics["base.heldout_psnr_mean"] > 0
    record = json.loads((tiny_base / "run.json").read_text())
    assert record["command"].startswith("wsrl base digits --source '{limit: 10}'") and record["elapsed_s"] is not None


def test_the_same_command_keeps_what_is_there_and_another_is_refused(tmp_path, refused):
    argv = ["base", "digits", "--source", "{limit: 6}", "--out", str(tmp_path), *TINY_BASE]
    assert main(argv) == 0
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(argv) == 0
    assert "another configuration" in refused(*argv, "--train.seed", "1")
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_folder_of_another_command_is_refused(tmp_path, refused):
    (tmp_path / "run.json").write_text('{"command": "wsrl run digits", "config": {}}')
    message = refused("base", "digits", "--source", "{limit: 6}", "--out", tmp_path, *TINY_BASE)
    assert "not ours" in message and [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_printed_defaults_fit_the_data(capsys):
    assert main(["base", "digits", "--out", "nowhere", "--train.seed", "3", "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["train"]
    assert shown["seed"] == 3 and shown["model"]["field"]["width"] == 32
    assert [stage["resolution"] for stage in shown["stages"]] == [0.5, 1.0]
