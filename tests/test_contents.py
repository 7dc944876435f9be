"""``from wsrl import ...``: every name is there, is imported when it is asked for, and has an example that runs."""

import doctest
import re
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image
from torch import nn

import wsrl
from wsrl.training.base_data import Stage
from wsrl.training.base_field import BaseTrainingConfig


@pytest.mark.parametrize("name", wsrl.__all__)
def test_every_name_is_there_is_documented_and_has_an_example(name):
    assert getattr(wsrl, name).__doc__
    assert re.search(rf">>> .*\b{name}\b", wsrl.__doc__) and name in dir(wsrl)


def test_the_examples_run(tmp_path, monkeypatch):
    for name in ("gradient", "noise"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            image = Image.effect_noise((8, 8), 20 + 5 * i)
            image = Image.linear_gradient("L").rotate(30 * i).resize((8, 8)) if name == "gradient" else image
            image.save(tmp_path / "pictures" / name / f"{i:02d}.png")
    monkeypatch.chdir(tmp_path)
    made = {
        "small_base": BaseTrainingConfig(stages=(Stage(resolution=1.0, batch_size=8, steps=5),), num_heldout=2),
        "network": nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
        "inputs": torch.zeros(1, 3),
    }
    with warnings.catch_warnings():
        result = doctest.testmod(wsrl, extraglobs=made)
    assert result.attempted > 20 and not result.failed


def test_a_wrong_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        wsrl.nonsense  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = "import sys, wsrl; dir(wsrl); assert 'torch' not in sys.modules; wsrl.UserError"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' not in sys.modules"], check=True)
