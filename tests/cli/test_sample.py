"""``wsrl sample``: the same seed gives the same pictures, and wrong options write nothing."""

import json

import pytest
from PIL import Image
from safetensors.torch import load_file

from wsrl.cli.main import main


@pytest.fixture(scope="module")
def model(digits_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("diffusion") / "run"
    argv = [
        "train", "diffusion", "--data.store", digits_store, "--data.num_workers", "0", "--model.width", "8",
        "--model.depth", "1", "--model.local_depth", "1", "--model.heads", "2", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", run,
    ]  # fmt: skip
    assert main([str(word) for word in argv]) == 0
    return run


def draw(model, out, seed, num=3):
    argv = ["sample", model, "--out", out, "--seed", seed, "--num", num, "--steps", "2", "--device", "cpu"]
    assert main([str(word) for word in argv]) == 0
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"}


def test_the_same_seed_gives_the_same_pictures(model, tmp_path):
    one, two, other = (draw(model, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert set(one) == {"00000.png", "00001.png", "00002.png", "samples.png", "weights.safetensors"}
    assert one == two and one["weights.safetensors"] != other["weights.safetensors"]
    with Image.open(tmp_path / "a" / "00000.png") as image:
        assert image.size == (8, 8)
    assert all(len(tensor) == 3 for tensor in load_file(tmp_path / "a" / "weights.safetensors").values())
    assert json.loads((tmp_path / "a" / "run.json").read_text())["results"] == {"num": 3}


def test_fewer_pictures_in_the_same_folder_leave_no_old_ones(model, tmp_path):
    draw(model, tmp_path, 1)
    assert "00002.png" not in draw(model, tmp_path, 1, num=2)


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--num", "0"], "--num is 0"),
        (["--steps", "0"], "--steps is 0"),
        (["--size", "1"], "--size is 1"),
        (["--nmu", "3"], "--nmu"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_wrong_options_write_nothing(refused, model, tmp_path, extra, wrong):
    assert wrong in refused("sample", model, "--out", tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_model_or_not_ours(refused, model, tmp_path):
    assert "holds no diffusion model" in refused("sample", tmp_path, "--out", tmp_path / "out")
    assert "not ours" in refused("sample", model, "--out", model, "--num", "1", "--steps", "1")
