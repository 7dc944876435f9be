"""``wsrl eval probe``: every reader on a small real store, its controls, curves, importance and maps."""

import json

import pytest
from PIL import Image

from wsrl.cli.main import main

ONCE = ("accuracy", "one_nn", "one_nn_cosine", "knn", "svm", "ari", "nmi", "silhouette", "precision_at_8")


def run(tmp_path, *arguments):
    out = tmp_path / "metrics.json"
    assert main(["eval", "probe", *map(str, arguments), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_all_readers_are_told_of_weights_and_pixels(digits_store, tmp_path, capsys):
    metrics = run(tmp_path, digits_store)
    assert len(capsys.readouterr().out.splitlines()) <= 20
    for of in ("weights", "pixels"):
        for name in ONCE:
            assert -1 <= metrics[f"probe.{of}_{name}"] <= 1
            assert f"probe.{of}_{name}_std" not in metrics
    by_class = [metrics[f"probe.pixels_precision_at_8.{digit}"] for digit in range(10)]
    assert metrics["probe.pixels_precision_at_8"] > 0.5 and max(by_class) > min(by_class)
    assert metrics["probe.pixels_svm"] > 0.6 and metrics["probe.pixels_ari"] > 0.2
    assert run(tmp_path, digits_store, "--limit", 15)["probe.num_train"] == 15


def test_seeds_folds_curve_and_importance(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    asked = [store, "--seeds", 2, "--folds", 3, "--label-efficiency", "--importance"]
    metrics = run(tmp_path, *asked)
    for name in ("one_nn_cosine", "knn", "svm", "logistic", "ari", "nmi", "silhouette"):
        assert metrics[f"probe.weights_{name}_seeds"] == 2 and metrics[f"probe.weights_{name}_std"] >= 0
    assert metrics["probe.weights_logistic"] > 0.8 and metrics["probe.weights_one_nn_cosine_std"] > 0
    assert metrics["probe.weights_label_efficiency.1"] < 0.6 < metrics["probe.weights_label_efficiency.10"]
    assert metrics["probe.weights_label_efficiency.1_std"] > 0
    assert "probe.weights_label_efficiency.100" not in metrics  # no class has so many
    # The one number that tells the classes apart is in A.
    assert metrics["probe.importance.layers.0.down.alone"] > 0.9 > 0.7 > metrics["probe.importance.layers.0.up.alone"]
    for measure in ("left_out", "shuffled"):
        assert metrics[f"probe.importance.layers.0.down.{measure}"] > 0.2
        assert metrics[f"probe.importance.layers.0.up.{measure}"] < 0.1
    assert run(tmp_path, *asked) == metrics


def test_maps_show_the_fields(digits_store, tmp_path):
    run(tmp_path, digits_store, "--maps", tmp_path / "maps", "--limit", 30)
    for name in ("pca", "tsne"):
        with Image.open(tmp_path / "maps" / f"{name}.png") as picture:
            assert picture.width > 500 and len(picture.convert("L").getcolors()) > 20


@pytest.mark.parametrize(
    ("asked", "told"), [(["--folds", "30"], "--folds is 30"), (["--folds", "1"], "folds is 1"), (["--seeds", "0"], "0")]
)
def test_mistakes_are_refused(digits_store, asked, told, refused):
    assert told in refused("eval", "probe", digits_store, *asked)


def test_canonical_factors_stand_beside_the_raw_ones(make_store, tmp_path, capsys):
    metrics = run(tmp_path, make_store(tmp_path / "store"), "--gauge", "canonical", "--importance")
    printed = capsys.readouterr().out
    assert "from their canonical form:" in printed
    for name in ONCE:
        assert f"probe.canonical_{name}" in metrics and f"probe.weights_{name}" in metrics
    assert any(metrics[f"probe.canonical_{name}"] != metrics[f"probe.weights_{name}"] for name in ONCE)


def test_a_gauge_of_networks_without_factors_is_refused(digits_store, refused):
    assert "without factors" in refused("eval", "probe", digits_store, "--gauge", "canonical")
    assert "gauge is 'balanced'" in refused("eval", "probe", digits_store, "--gauge", "balanced")
