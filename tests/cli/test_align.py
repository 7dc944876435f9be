"""``wsrl align`` of two network files: what it writes, what it prints, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wsrl.cli import align
from wsrl.symmetry.spec.spec import PermutationSpec

MODULE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(216, 10))

def with_inputs():
    return make(), torch.zeros(2, 1, 8, 8)

def wrong():
    return 3
"""


WORDED = """
import torch
from torch import nn

NAMES = ["a_in", "b_one", "b_two", "b_three", "z_out"]
SIZES = [2, 16, 16, 16, 16, 1]

class Worded(nn.Module):
    def __init__(self):
        super().__init__()
        for name, fan_in, fan_out in zip(NAMES, SIZES, SIZES[1:]):
            setattr(self, name, nn.Linear(fan_in, fan_out))

    def forward(self, x):
        for name in NAMES[:-1]:
            x = torch.relu(getattr(self, name)(x))
        return self.z_out(x)

def make():
    return Worded()
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A function that writes a network and a copy of it with its units elsewhere; gives the two paths and weights."""

    def write(net, inputs):
        spec, weights = PermutationSpec.from_module(net, inputs), dict(net.state_dict())
        copied = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(1)))
        paths = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
        for path, tensors in zip(paths, (weights, copied)):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return paths, weights, copied, spec

    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield write


def stack(hidden: int = 16) -> nn.Module:
    net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    for parameter in net.parameters():
        parameter.data *= 3  # so that units matter
    return net


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_stack_is_aligned_and_its_path_scored(networks, tmp_path, capsys):
    paths, weights, copied, spec = networks(stack(), torch.zeros(1, 64))
    out = tmp_path / "out"
    argv = [*paths, "--out", str(out), "--data", "digits", "--limit", "50", "--points", "5"]
    assert align.main(argv) == 0
    assert same(load_file(out / "aligned.safetensors"), weights) and not same(copied, weights)
    assert same(spec.apply(copied, load_file(out / "permutations.safetensors")), weights)
    metrics = json.loads((out / "metrics.json").read_text())
    middle = [abs(metrics[f"align.{when}.loss.002"] - metrics["align.after.loss.000"]) for when in ("after", "before")]
    assert middle[0] < 1e-5 and middle[1] > 0.1 and metrics["align.after.barrier"] < 1e-5
    assert metrics["align.after.loss.000"] == pytest.approx(metrics["align.before.loss.000"])
    assert set(metrics) >= {"align.after.accuracy.004", "align.objective", "align.units", "align.moved_units"}
    assert metrics["align.units"] == 32 and 0 < metrics["align.moved_units"] <= 32
    shown = capsys.readouterr().out
    assert "loss before" in shown and "align.after.barrier" in shown and " 0.250 " in shown
    assert json.loads((out / "run.json").read_text())["inputs"]["moving"]["path"] == paths[1]


def test_activations_recover_a_copy(networks, tmp_path):
    paths, weights, _, _ = networks(stack(8), torch.zeros(1, 64))
    argv = [*paths, "--out", str(tmp_path / "o"), "--data", "digits", "--limit", "50", "--points", "3"]
    assert align.main([*argv, "--method", "activations"]) == 0
    assert same(load_file(tmp_path / "o" / "aligned.safetensors"), weights)


def test_layers_named_by_words_need_a_module(networks, tmp_path, monkeypatch, refuses):
    """Reported as samuela/git-re-basin#5: the alphabet gave the order, and the aligned network was another one."""
    (tmp_path / "worded_networks.py").write_text(WORDED)
    monkeypatch.syspath_prepend(tmp_path)
    make = __import__("worded_networks").make
    net = make()
    paths, weights, copied, _ = networks(net, torch.zeros(3, 2))
    message = refuses(*paths, "--out", str(tmp_path / "none"))
    assert "more than one order" in message and "--network MODULE:FUNCTION" in message
    assert align.main([*paths, "--out", str(tmp_path / "o"), "--network", "worded_networks:make"]) == 0
    assert same(load_file(tmp_path / "o" / "aligned.safetensors"), weights) and not same(copied, weights)


def test_a_module_or_a_spec_may_be_given(networks, tmp_path):
    (tmp_path / "given_networks.py").write_text(MODULE)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(216, 10))
    paths, weights, _, spec = networks(net, torch.zeros(2, 1, 8, 8))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    ways = {
        "data": ["--network", "given_networks:make", "--data", "digits", "--limit", "40", "--points", "3"],
        "inputs": ["--network", "given_networks:with_inputs"],
        "spec": ["--spec", "spec.json"],
    }
    for name, way in ways.items():
        assert align.main([*paths, "--out", str(tmp_path / name), *way]) == 0
        assert same(load_file(tmp_path / name / "aligned.safetensors"), weights)
    assert "align.after.barrier" in json.loads((tmp_path / "data" / "metrics.json").read_text())
    assert "align.after.barrier" not in json.loads((tmp_path / "spec" / "metrics.json").read_text())


def test_a_rerun_gives_the_same_and_other_folders_stay_as_they_are(networks, tmp_path, refuses):
    paths, *_ = networks(stack(), torch.zeros(1, 64))
    for _ in range(2):
        assert align.main([*paths, "--out", str(tmp_path / "out")]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert "not ours" in refuses(*paths, "--out", tmp_path / "mine")


@pytest.fixture
def refuses():
    """A function that runs the command, which has to end in a message of three parts."""
    from wsrl.errors import UserError

    def run(*argv):
        with pytest.raises(UserError) as caught:
            align.main([str(word) for word in argv])
        assert "Allowed: " in str(caught.value)
        return str(caught.value)

    return run


def test_wrong_files_are_refused(networks, tmp_path, refuses):
    (a, _), weights, _, _ = networks(stack(), torch.zeros(1, 64))
    out = ["--out", tmp_path / "out"]
    other = tmp_path / "other.safetensors"
    save_file({**weights, "0.weight": torch.zeros(16, 63)}, other)
    assert "'0.weight' has shape (16, 64)" in refuses(a, other, *out)
    save_file({**weights, "9.weight": torch.zeros(1, 10)}, other)
    assert "the first network has no tensor '9.weight'" in refuses(a, other, *out)
    other.write_bytes(b"\x80\x04pickle")
    assert "no safetensors file, or is damaged" in refuses(a, other, *out)
    other.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-10])
    assert "no safetensors file, or is damaged" in refuses(a, other, *out)
    assert "missing.safetensors does not exist" in refuses(a, "missing.safetensors", *out)
    assert "1 files are given" in refuses(a, *out)
    assert f"the folder {tmp_path} is given" in refuses(a, tmp_path, *out)
    assert "is no store" in refuses(tmp_path, *out)
    posterior = tmp_path / "posterior.safetensors"
    save_file({"mean.w": torch.zeros(2), "deviation.w": torch.ones(2)}, posterior)
    assert f"{posterior} is a posterior, {a} is not" in refuses(a, posterior, *out)
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_refused(networks, tmp_path, refuses):
    paths, _, _, spec = networks(stack(), torch.zeros(1, 64))
    (tmp_path / "given_networks.py").write_text(MODULE)
    (tmp_path / "bad.json").write_text("{}")
    less = spec.to_json()
    del less["axes"]["4.bias"]
    (tmp_path / "less.json").write_text(json.dumps(less))
    for words, text in (
        (["--points", "2"], "--points is 2"),
        (["--method", "activations"], "matching by activations needs a module and examples"),
        (["--network", "given_networks"], "--network is 'given_networks'"),
        (["--network", "given_networks:other"], "has no function 'other'"),
        (["--network", "no_such_module:make"], "No module named"),
        (["--network", "given_networks:wrong"], "gives int"),
        (["--network", "given_networks:make"], "don't fit into the module"),
        (["--spec", "bad.json"], "bad.json is no permutation spec"),
        (["--spec", "less.json"], "the spec says nothing of '4.bias'"),
        (["--data", "solids"], "has no pictures"),
        (["--data", "fashion-mnist", "--limit", "5"], "does not take the pictures"),
    ):
        assert text in refuses(*paths, "--out", tmp_path / "out", *words)


def test_kinds_are_told_apart_by_what_is_given(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    assert align.kind_of([str(tmp_path)]) == "store"
    paths = [str(tmp_path / name) for name in ("p", "q")]
    for path in paths:
        save_file({"mean.w": torch.zeros(2), "deviation.w": torch.ones(2)}, path)
    assert align.kind_of(paths) == "posteriors"
    for path in paths:
        save_file({"mean.w": torch.zeros(2)}, path)  # a network with such a name
    assert align.kind_of(paths) == "networks"
