"""``--trainer.precision``: every task trains in it or refuses it by name (Lightning#19980: an error of a dataclass)."""

import json
import math

import pytest
import torch
from test_train_again import SMALL

from wsrl.cli.main import main

AUGMENT = ("--model.augment", "{permute: true, scale: 0.2, noise: 0.3, dropout: 0.1}")


@pytest.fixture
def train(tmp_path, digits_store):
    """Train a small model for two epochs in ``run``; returns the status."""
    fixed = ["--data.store", digits_store, "--data.num_workers", "0", "--data.batch_size", "16"]
    fixed += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", tmp_path / "run"]

    def call(task, *more):
        words = ["train", task, *fixed, "--trainer.max_epochs", 2, *SMALL[task], *more]
        return main([str(word) for word in words])

    return call


@pytest.mark.parametrize("task", SMALL)
@pytest.mark.parametrize("precision", ["bf16-mixed", "32"])
def test_a_mixed_precision_trains_and_the_model_is_float32(train, tmp_path, task, precision):
    from safetensors.torch import load_file

    more = AUGMENT if task == "classifier" else ()
    assert train(task, "--trainer.precision", precision, *more) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in metrics.values())
    for path in (tmp_path / "run" / "model").rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("task", SMALL)
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "64"])
def test_a_precision_of_the_parameters_is_refused_before_anything_is_written(train, tmp_path, capsys, task, precision):
    assert train(task, "--trainer.precision", precision) == 2
    message = capsys.readouterr().err
    assert "trainer.precision is 64-true" in message or f"trainer.precision is {precision}" in message
    assert "bf16-mixed" in message and "Allowed: " in message
    assert not (tmp_path / "run").exists()


def test_run_refuses_it_before_its_first_stage(tmp_path, capsys):
    words = ["run", "digits", "--out", str(tmp_path / "out"), "--flow.classifier", '{"trainer.precision": "bf16-true"}']
    assert main(words) == 2
    assert "trainer.precision is bf16-true" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
