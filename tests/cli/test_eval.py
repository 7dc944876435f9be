"""``wsrl eval``: tables and metrics of a real small store, and its messages."""

import json

from wsrl.cli.main import main


def run(tmp_path, *arguments):
    out = tmp_path / "metrics.json"
    assert main(["eval", *map(str, arguments), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_recomputed_reconstruction_agrees_with_the_record(digits_store, tmp_path):
    metrics = run(tmp_path, "reconstruction", digits_store, "--recompute", 5)
    assert metrics["reconstruction.num_fields"] == 100 and metrics["reconstruction.psnr_mean"] > 10
    assert metrics["reconstruction.recomputed.num"] == 5
    assert metrics["reconstruction.recomputed.psnr_difference_max"] < 1e-3


def test_probe_of_weights_stands_beside_pixels(digits_store, tmp_path, capsys):
    metrics = run(tmp_path, "probe", digits_store)
    assert metrics["probe.num_train"] == 80 and metrics["probe.num_test"] == 20
    assert metrics["probe.pixels_accuracy"] > 0.6
    assert metrics["probe.weights_accuracy"] > 0.2
    assert "probe.weights_accuracy" in capsys.readouterr().out


def test_metrics_of_other_stages_are_kept(digits_store, tmp_path):
    (tmp_path / "metrics.json").write_text('{"elapsed_s": 3}')
    metrics = run(tmp_path, "reconstruction", digits_store)
    assert metrics["elapsed_s"] == 3


def test_folders_that_hold_something_else_are_refused(digits_store, tmp_path, capsys):
    assert main(["eval", "generation", str(tmp_path), "--store", str(digits_store)]) == 2
    assert "holds no diffusion model" in capsys.readouterr().err
    assert main(["eval", "probe", str(tmp_path)]) == 2
    assert "not a weight store" in capsys.readouterr().err


def test_generation_scores_samples_of_a_trained_model(digits_store, tmp_path):
    train = [
        "train", "diffusion", "--data.store", digits_store, "--data.num_workers", "0", "--model.width", "8",
        "--model.depth", "1", "--model.local_depth", "1", "--model.heads", "2", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", tmp_path / "run",
    ]  # fmt: skip
    assert main([str(word) for word in train]) == 0
    metrics = run(tmp_path, "generation", tmp_path / "run", "--store", digits_store, "--num", 12, "--steps", 3)
    assert metrics["generation.num_samples"] == 12 and metrics["generation.num_classes"] == 10
    assert 0 < metrics["generation.top_probability"] <= 1
    assert metrics["generation.nearest_train_ratio"] > 0


def test_wrong_usage_has_status_2(capsys):
    assert main(["eval", "nothing"]) == 2
