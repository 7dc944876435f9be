"""``wsrl eval structure``: fits that it makes itself, two stores, one store, and what it refuses."""

import json

import pytest

from wsrl.cli.main import main

CONFIG = """
representation:
  kind: mlp
  start: random
  field: {width: 4, depth: 1, encoding: identity, activation: sine, omega: 5.0}
fit: {steps: 40, learning_rate: 0.05, batch_size: 6}
"""
SOURCE = "{limit: 6}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two stores of the same six digits, of networks that start differently, and their configuration."""
    root = tmp_path_factory.mktemp("structure")
    (root / "build.yaml").write_text(CONFIG)
    for seed in (0, 1):
        given = ["digits", "--source", SOURCE, "--config", str(root / "build.yaml"), "--fit.seed", str(seed)]
        assert main(["build", *given, "--device", "cpu", "--out", str(root / f"store{seed}")]) == 0
    return root


def measured(tmp_path, *arguments):
    out = tmp_path / "metrics.json"
    assert main(["eval", "structure", *map(str, arguments), "--points", "5", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def refused(capsys, *arguments):
    assert main(["eval", "structure", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_data_are_fitted_at_every_distance(built, tmp_path, capsys):
    given = ["digits", "--source", SOURCE, "--config", built / "build.yaml", "--representation", "mlp", "--num", 4]
    metrics = measured(tmp_path, *given, "--lambdas", 0, 1)
    assert {key.split(".")[2] for key in metrics} == {"lambda_0", "lambda_1"}
    assert metrics["structure.mlp.lambda_1.num"] == 4
    assert metrics["structure.mlp.lambda_0.cosine"] == pytest.approx(1)
    assert metrics["structure.mlp.lambda_1.cosine_high"] < 0.9
    assert metrics["structure.mlp.lambda_1.barrier"] > metrics["structure.mlp.lambda_0.barrier"] == 0
    assert f"mlp 1:       cosine {metrics['structure.mlp.lambda_1.cosine']:.3g} (" in capsys.readouterr().out


def test_two_stores_are_compared_signal_by_signal(built, tmp_path):
    other = measured(tmp_path, built / "store0", "--with", built / "store1")
    same = measured(tmp_path, built / "store0", "--with", built / "store0")
    assert other["structure.num"] == same["structure.num"] == 12  # six of either split
    assert same["structure.cosine"] == pytest.approx(1) and same["structure.overlap"] == pytest.approx(1)
    assert other["structure.cosine_high"] < 0.9 and other["structure.overlap"] < 0.9
    assert other["structure.barrier"] > 0


def test_one_store_has_ranks_and_angles_between_its_fields(built, tmp_path):
    metrics = measured(tmp_path, built / "store0", "--num", 5)
    assert metrics["structure.num"] == 5
    assert 1 < metrics["structure.effective_rank"] < 2  # of weights (4, 2) and (1, 4)
    assert abs(metrics["structure.cosine_between_signals"]) < 0.9


def test_what_does_not_fit_is_refused(built, capsys):
    assert "no store" in refused(capsys, "digits", "--with", built / "store0")
    assert "--lambdas is given" in refused(capsys, built / "store0", "--lambdas", 0.5)
    assert "3 or more" in refused(capsys, built / "store0", "--points", 2)
    given = ["digits", "--source", SOURCE, "--num", 1, "--representation"]
    assert "0 to 1" in refused(capsys, *given, "mlp", "--config", built / "build.yaml", "--lambdas", 2)
    assert "base field" in refused(capsys, *given, "lora")


def test_stores_of_other_masks_are_refused(digits_store, built, capsys):
    assert "different layouts or masks" in refused(capsys, built / "store0", "--with", digits_store)
