"""``wsrl eval``: tables and metrics of a real small store, and its messages."""

import json

import pytest
import trimesh
from PIL import Image

from wsrl.cli.main import main

FEW_POINTS = "num_near: 500, num_uniform: 500, num_surface: 600, num_heldout: 1000"
SHAPES = {"train": 4, "test": 2}  # of each class


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of balls and boxes, and a store of small networks that are fitted to them for a moment."""
    root = tmp_path_factory.mktemp("shapes")
    for split, number in SHAPES.items():
        for i in range(number):
            solids = {"ball": trimesh.creation.icosphere(2), "box": trimesh.creation.box((1, 1, 1 - 0.1 * i))}
            for label, mesh in solids.items():
                path = root / "data" / split / label / f"{i}.ply"
                path.parent.mkdir(parents=True, exist_ok=True)
                mesh.export(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSRL_CACHE", str(root / "cache"))
        given = [str(root / "data"), "--source", f"{{{FEW_POINTS}}}", "--representation", "mlp", "--device", "cpu"]
        small = ["--representation.field", "{width: 16, depth: 2, encoding: identity, activation: sine, omega: 3.0}"]
        steps = ["--fit.steps", "150", "--fit.points_per_step", "500", "--fit.learning_rate", "0.02"]
        assert main(["build", *given, *small, *steps, "--out", str(root / "store")]) == 0
        yield root


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
    printed = capsys.readouterr().out
    assert f"{metrics['probe.weights_accuracy']:.1%} by logistic regression" in printed and "from pixels" in printed
    assert f"always the largest class: {metrics['probe.largest_class']:.1%}" in " ".join(printed.split())


def test_metrics_of_other_stages_are_kept(digits_store, tmp_path):
    (tmp_path / "metrics.json").write_text('{"elapsed_s": 3}')
    metrics = run(tmp_path, "reconstruction", digits_store)
    assert metrics["elapsed_s"] == 3


def test_folders_that_hold_something_else_are_refused(digits_store, tmp_path, capsys):
    assert main(["eval", "generation", str(tmp_path), "--store", str(digits_store)]) == 2
    assert "holds no diffusion model" in capsys.readouterr().err
    assert main(["eval", "probe", str(tmp_path)]) == 2
    assert "not a weight store" in capsys.readouterr().err


def train_diffusion(store, out):
    words = [
        "train", "diffusion", "--data.store", store, "--data.num_workers", "0", "--model.width", "8",
        "--model.depth", "1", "--model.heads", "2", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", out,
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return out


@pytest.fixture(scope="module")
def model(digits_store, tmp_path_factory):
    """A diffusion model that was trained for a moment."""
    return train_diffusion(digits_store, tmp_path_factory.mktemp("model") / "run")


SAMPLED = ("--num", 12, "--steps", 3)


def test_generation_scores_samples_held_out_fields_and_baselines(digits_store, model, tmp_path, capsys):
    asked = ["generation", model, "--store", digits_store, *SAMPLED, "--features", tmp_path / "features"]
    metrics = run(tmp_path, *asked, "--features-from", "store", "--baselines")
    ending, printed = capsys.readouterr()
    assert f"FD {metrics['generation.fd']:.3g}; held-out fields {metrics['generation.fitted_test.fd']:.3g}" in ending
    assert "copies with noise" in ending and len(ending.splitlines()) <= 20
    for row in ("", "fitted_test.", "noise_0.", "noise_0.4.", "mean_of_two.", "gaussian."):
        for name in ("fd", "mmd_gaussian", "mmd_polynomial", "precision", "recall", "nearest_ratio", "share_nearer"):
            assert f"generation.{row}{name}" in metrics
    assert metrics["generation.num"] == metrics["generation.noise_0.num"] == 12
    assert metrics["generation.fitted_test.nearest_ratio"] == pytest.approx(1, abs=0.2)  # 12 of 20 held-out fields
    assert metrics["generation.noise_0.nearest_ratio"] == 0
    assert metrics["generation.num_classes"] == 10 and 0 < metrics["generation.top_probability"] <= 1
    assert metrics["generation.nearest_train_ratio"] == metrics["generation.nearest_ratio"] > 0
    assert "80 training and 20 held-out fields" in printed and "features: classifier of 80 pictures" in printed
    assert "377 real pictures that are no training fields" in printed and "SHA-256" in printed
    assert "at equal distance from training by weights" in printed
    with Image.open(tmp_path / "closest.png") as sheet:
        assert sheet.width > 8 * 56 and len(sheet.convert("L").getcolors()) > 2
    (kept,) = (tmp_path / "features").iterdir()
    asked[-1] = kept
    assert run(tmp_path, *asked)["generation.fd"] == metrics["generation.fd"]


def test_pictures_without_classes_have_scores_of_memorisation(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for i in range(40):
        Image.effect_noise((8, 8), 10 + i).save(tmp_path / "data" / f"{i:02d}.png")
    small = ["--representation.field", "{width: 8, depth: 1, encoding: identity, activation: sine, omega: 5.0}"]
    given = [str(tmp_path / "data"), "--representation", "mlp", "--fit.steps", "3", "--device", "cpu", *small]
    assert main(["build", *given, "--out", str(tmp_path / "store")]) == 0
    model = train_diffusion(tmp_path / "store", tmp_path / "run")
    asked = ["generation", model, "--store", tmp_path / "store", *SAMPLED]
    for more, told in (([], "give --data"), (["--data", tmp_path / "data"], "give --features timm:NAME")):
        metrics = run(tmp_path, *asked, *more)
        assert told in capsys.readouterr().err
        assert metrics["generation.nearest_ratio"] > 0 and "generation.fd" not in metrics


def test_generation_scores_shapes(shapes, tmp_path, capsys):
    model = train_diffusion(shapes / "store", tmp_path / "run")
    asked = ["generation", model, "--store", shapes / "store", "--data", shapes / "data", *SAMPLED]
    metrics = run(tmp_path, *asked, "--resolution", 16)
    ending, printed = capsys.readouterr()
    assert "MMD (Chamfer)" in ending and "1-NNA" in ending
    for name in ("mmd_cd", "cov", "one_nna", "nearest_ratio", "share_nearer_signal", "num_invalid"):
        assert f"generation.{name}" in metrics and f"generation.fitted_test.{name}" in metrics
    assert metrics["generation.fitted_test.mmd_cd"] < 0.1 and metrics["generation.num_references"] == 4
    assert "600 points on each surface" in printed and "farthest point to radius 1" in printed
    assert (tmp_path / "closest.png").is_file()


def test_surfaces_of_shapes_are_scored(shapes, tmp_path, capsys):
    asked = ["reconstruction", shapes / "store", "--data", shapes / "data", "--resolution", 24, "--points", 500]
    metrics = run(tmp_path, *asked, "--shapes", 8)
    ending, printed = capsys.readouterr()
    assert metrics["reconstruction.num_fields"] == 12 and "reconstruction.psnr_mean" in metrics
    assert metrics["reconstruction.num_shapes"] == 8 and metrics["reconstruction.num_points"] == 500
    assert metrics["reconstruction.train.num_shapes"] + metrics["reconstruction.test.num_shapes"] == 8
    assert 0.8 < metrics["reconstruction.iou_median"] <= 1
    for name in ("chamfer_l1", "chamfer_l2_squared", "f_score", "normal_consistency"):
        assert f"reconstruction.test.{name}_median" in metrics and f"reconstruction.{name}_mean" in metrics
    assert f"IoU {metrics['reconstruction.iou_median']:.3f}" in ending and "8 shapes" in " ".join(ending.split())
    assert "farthest vertex at radius 0.9" in printed and "500 points on either surface" in printed
    assert run(tmp_path, *asked, "--shapes", 8) == metrics


def test_points_are_at_most_those_of_the_signals(shapes, tmp_path):
    few = ["--shapes", 1, "--resolution", 16]
    metrics = run(tmp_path, "reconstruction", shapes / "store", "--data", shapes / "data", *few)
    assert metrics["reconstruction.num_points"] == 600


def test_recomputed_fields_of_shapes_agree_with_the_record(shapes, tmp_path):
    asked = ["--shapes", 0, "--recompute", 5]
    metrics = run(tmp_path, "reconstruction", shapes / "store", "--data", shapes / "data", *asked)
    assert metrics["reconstruction.recomputed.psnr_difference_max"] < 1e-3
    assert "reconstruction.iou_median" not in metrics


def test_probe_of_weights_stands_beside_d2_histograms(shapes, tmp_path):
    metrics = run(tmp_path, "probe", shapes / "store", "--data", shapes / "data")
    assert metrics["probe.num_train"] == 8 and metrics["probe.num_test"] == 4
    assert metrics["probe.d2_accuracy"] == metrics["probe.d2_one_nn"] == 1.0
    assert "probe.weights_accuracy" in metrics and "probe.pixels_accuracy" not in metrics


def test_surfaces_of_a_folder_need_the_folder(shapes, tmp_path, capsys):
    assert "reconstruction.iou_median" not in run(tmp_path, "reconstruction", shapes / "store")
    assert "give the data of the store with --data" in capsys.readouterr().err
    assert main(["eval", "reconstruction", str(shapes / "store"), "--shapes", "3"]) == 2
    assert "no named source" in capsys.readouterr().err


def test_surfaces_of_pictures_are_refused(digits_store, capsys):
    assert main(["eval", "reconstruction", str(digits_store), "--shapes", "3"]) == 2
    assert "holds pictures" in capsys.readouterr().err


def test_wrong_usage_has_status_2(capsys):
    assert main(["eval", "nothing"]) == 2
