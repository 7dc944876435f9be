"""``wsrl align`` of two posterior files."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wsrl.cli.main import main
from wsrl.symmetry.matching.posteriors import Posterior, squared_wasserstein
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.training.variational import load_posterior, save_posterior


@pytest.fixture
def pair(tmp_path):
    """A posterior of a perceptron on 8x8 pictures, and a permuted copy of it, as files."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    means = {name: each.detach() for name, each in module.named_parameters()}
    first = Posterior(means, {name: 0.01 + 0.02 * torch.rand(mean.shape) for name, mean in means.items()})
    spec = PermutationSpec.from_module(module, torch.zeros(2, 64))
    second = first.moved(spec, spec.random_permutation(None))
    return first, [str(save_posterior(tmp_path / name, each, {})) for name, each in (("a", first), ("b", second))]


def test_a_permuted_posterior_is_moved_back(pair, tmp_path, capsys):
    first, files = pair
    out = tmp_path / "out"
    choice = ["--data", "digits", "--limit", "30", "--points", "3", "--samples", "2"]
    assert main(["align", *files, "--out", str(out), *choice]) == 0
    assert squared_wasserstein(first, load_posterior(out)) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["align.squared_wasserstein_before"] > 1 > metrics["align.squared_wasserstein_after"] == 0
    assert metrics["align.after.barrier"] == 0 == metrics["align.after.barrier_stderr"]
    assert metrics["align.before.loss.001"] != metrics["align.after.loss.001"]
    assert set(load_file(out / "permutations.safetensors")) and "align.before.barrier" in capsys.readouterr().out


def test_what_cannot_be_aligned_is_said(pair, tmp_path, capsys):
    _, files = pair
    out = ["--out", str(tmp_path / "out")]
    assert main(["align", *files, *out, "--method", "activations"]) == 2
    assert "--method activations is given for posteriors" in capsys.readouterr().err
    other = Posterior({"0.weight": torch.zeros(3, 64)}, {"0.weight": torch.ones(3, 64)})
    save_posterior(tmp_path / "b", other, {})
    assert main(["align", *files, *out]) == 2
    assert "allowed" in capsys.readouterr().err.lower()
