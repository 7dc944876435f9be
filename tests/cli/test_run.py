"""``wsrl run`` on a folder of pictures: what it leaves, that it goes on where it stopped, and its refusals."""

import json

import pytest
from PIL import Image

from wsrl.cli.main import main

MODEL = {"model.width": 8, "model.depth": 1, "model.local_depth": 1, "model.heads": 2}
ONE_EPOCH = {"trainer.max_epochs": 1, "trainer.accelerator": "cpu"}
TINY = (
    "--flow.base.model.field.width", "8", "--flow.base.model.field.depth", "2",
    "--flow.base.model.field.num_frequencies", "4", "--flow.base.model.latent_size", "4",
    "--flow.base.stages", "[{resolution: 1.0, batch_size: 8, steps: 5}]",
    "--flow.base.num_heldout", "2", "--flow.base.heldout_steps", "2",
    "--flow.representation.rank", "2", "--flow.fit.steps", "3", "--flow.fit.batch_size", "8",
    "--flow.classifier", json.dumps(ONE_EPOCH),
    "--flow.diffusion", json.dumps({**ONE_EPOCH, **MODEL, "data.batch_size": 8, "data.val_fraction": 0.0}),
    "--flow.num_samples", "8", "--flow.look_size", "16", "--device", "cpu", "--source", "{size: 8, mode: L}",
)  # fmt: skip
STAGES = (
    "base.train_psnr_mean", "reconstruction.psnr_mean", "classifier.test_accuracy", "diffusion.train_loss",
    "probe.weights_accuracy", "generation.num_samples", "elapsed_s",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 grey pictures of two classes: gradients and noise."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("gradient", "noise"):
        (root / name).mkdir()
        for i in range(12):
            noise = Image.effect_noise((8, 8), 20 + 5 * i)
            image = Image.linear_gradient("L").rotate(30 * i).resize((8, 8)) if name == "gradient" else noise
            image.save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder of a finished run; read it, do not write to it."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["run", str(folder), "--out", str(out), *TINY]) == 0
    return out


def test_scores_pictures_and_record(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(STAGES) <= set(metrics), sorted(metrics)
    assert all(isinstance(value, int | float) for value in metrics.values())
    for name in ("samples.png", "reconstruction.png"):
        with Image.open(finished / name) as image:
            assert min(image.size) > 16 and len(image.convert("L").getcolors()) > 2
    record = json.loads((finished / "run.json").read_text())
    assert record["command"].startswith("wsrl run ") and record["config"]["flow"]["fit"]["steps"] == 3


def test_the_same_command_keeps_every_stage(folder, finished, capsys):
    kept = [path for path in finished.rglob("*") if path.suffix in (".h5", ".safetensors", ".ckpt")]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}
    metrics = json.loads((finished / "metrics.json").read_text())
    assert main(["run", str(folder), "--out", str(finished), *TINY]) == 0
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}
    again = json.loads((finished / "metrics.json").read_text())
    told = capsys.readouterr().err
    assert "already holds this base field" in told and "epoch" not in told
    assert {**again, "elapsed_s": 0} == {**metrics, "elapsed_s": 0}


def test_another_configuration_is_refused(refused, folder, finished):
    before = (finished / "run.json").read_bytes()
    message = refused("run", folder, "--out", finished, *TINY, "--flow.seed", "1")
    assert "another configuration" in message and before == (finished / "run.json").read_bytes()


@pytest.mark.parametrize("option", ["--flow.nonsense", "--flow.fit.stepz", "--flow.representation.knid"])
def test_an_unknown_key_is_refused_before_anything_is_written(refused, folder, tmp_path, option):
    assert option.removeprefix("--") in refused("run", folder, "--out", tmp_path / "out", option, "1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["classifier", "diffusion"])
def test_an_unknown_option_of_a_model_is_refused_before_anything_is_written(refused, folder, tmp_path, task):
    assert "nonsense" in refused("run", folder, "--out", tmp_path / "out", *TINY, f"--flow.{task}", '{"nonsense": 1}')
    assert not (tmp_path / "out").exists()
