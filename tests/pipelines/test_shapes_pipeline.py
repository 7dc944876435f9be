"""The table of representations on shapes: its parts, and the whole on a few balls and boxes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipelines import experiment, shapes
from pipelines.field_tables import shapes as table
from pipelines.shape_pictures import over_classes
from pipelines.shape_scores import ScoreTask, score_in_processes
from pipelines.sweep import SweptKind
from wsrl.errors import UserError
from wsrl.evaluation.shape_reconstruction import score_fields
from wsrl.fields import RepresentationConfig
from wsrl.signals import open_source
from wsrl.signals.source import training_indices
from wsrl.store import WeightStore
from wsrl.training.base_field import BaseTrainingConfig

CONFIG = """
name: tiny
fit: {steps: 150, points_per_step: 500}
num_sweep: 4
num_heldout: 5
least_members: 5
num_meshed: 2
num_shown: 4
resolution: 24
num_points: 500
processes: 2
base:
  model:
    field: {width: 16, depth: 2, num_frequencies: 8, frequency_scale: 0.3}
    latent_size: 4
    mapping_width: 8
    mapping_depth: 1
  stages: [{resolution: 1.0, batch_size: 8, steps: 300}]
  num_signals: 12
  num_heldout: 2
  heldout_steps: 2
kinds:
  mlora_asym:
    representation: {kind: mlora_asym, rank: 4}
    learning_rates: [0.05, 0.1]
  mlp:
    representation: {kind: mlp, field: {width: 16, depth: 2, encoding: identity, activation: sine, omega: 3.0}}
    learning_rates: [0.02]
"""
SOURCE = {"num_near": 500, "num_uniform": 500, "num_surface": 600, "num_heldout": 1000}


def test_classes_of_few_are_not_probed():
    labels = np.array([0] * 6 + [1] * 5 + [2] * 4 + [-1] * 9)
    assert shapes.probed_classes(labels, 5).tolist() == [0, 1]
    with pytest.raises(UserError, match="least_members is 3"):
        shapes.ShapesConfig(name="x", data="solids", least_members=3)


def test_probes_see_the_probed_classes_alone():
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 30)
    labels[(labels == 2) & (np.arange(90) > 12)] = -1  # too few of them are left
    features = generator.normal(size=(90, 4)) * 0.1
    features[:, 0] += labels == 1
    features[(labels < 0) | (labels == 2)] = np.nan  # would end in an error
    config = shapes.ShapesConfig(name="x", data="solids")
    assert shapes.read_classes(features, labels, config) >= 0.9


def test_differences_are_paired_by_shape(tmp_path):
    """Rows in another order, one of them with a shape that has no score, and one that it lacks."""
    kind = SweptKind(representation=RepresentationConfig(), learning_rates=(0.1,))
    config = shapes.ShapesConfig(name="x", data="solids", out=str(tmp_path), kinds={"mlora_asym": kind, "mlp": kind})
    ids = [f"{number}" for number in range(12)]
    hard = np.random.default_rng(0).normal(size=12)  # what a shape is like is far more than what the kind does
    beside = {"id": ids, "iou": hard.tolist(), "chamfer_l1": hard.tolist(), "psnr": hard.tolist()}
    better = {
        "id": ids[::-1][1:],
        "iou": [*(hard[::-1][1:-1] + 0.01), float("nan")],
        "chamfer_l1": hard[::-1][1:].tolist(),
    }
    better["psnr"] = (hard[::-1][1:] + 1 + 0.1 * np.arange(11)).tolist()
    for name, scores in (("mlora_asym", beside), ("mlp", better)):
        shapes.shape_scores_file(name, config).write_text(json.dumps(scores))
    found = shapes.differences(config)
    assert [found[f"mlp.difference.iou{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.01] * 3)
    assert found["mlp.difference.chamfer_l1"] == 0 and found["mlp.difference.psnr"] == pytest.approx(1.5)
    assert 1 < found["mlp.difference.psnr_low"] < 1.5 < found["mlp.difference.psnr_high"] < 2
    assert not any(key.startswith("mlora_asym") for key in found)


def test_the_sweep_is_of_shapes_that_the_base_field_did_not_see():
    source = open_source("solids", num=40)
    config = shapes.ShapesConfig(name="x", data="solids", base=BaseTrainingConfig(num_signals=20), num_sweep=5)
    training = training_indices(source)
    swept = shapes.swept_shapes(source, config)
    assert len(swept) == 5 and not set(swept) & set(training[:20]) and set(swept) < set(training)
    with pytest.raises(UserError, match=r"the base field leaves .* training shapes and num_sweep is 5"):
        shapes.swept_shapes(source, replace(config, base=BaseTrainingConfig(num_signals=len(training) - 4)))


def test_shown_shapes_are_of_all_classes():
    labels = ["b", "b", "b", "a", "a", None, "b"]
    assert over_classes(range(7), labels, 3) == [0, 3, 5]
    assert over_classes([0, 1, 2, 4], labels, 3) == [0, 1, 4]
    assert over_classes([0, 1], labels, 5) == [0, 1]


@pytest.mark.slow
def test_whole_experiment_on_balls_and_boxes(tmp_path, monkeypatch, capsys):
    for split, number in {"train": 8, "test": 6}.items():
        for i in range(number):
            meshes = {"ball": trimesh.creation.icosphere(2), "box": trimesh.creation.box((1, 1, 1 - 0.05 * i))}
            for label, mesh in meshes.items():
                path = tmp_path / "data" / split / label / f"{i}.ply"
                path.parent.mkdir(parents=True, exist_ok=True)
                mesh.export(path)
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    source = SOURCE | {"cache": str(tmp_path / "cache")}
    paths = {"data": str(tmp_path / "data"), "out": str(tmp_path / "out"), "picture": str(tmp_path / "small.png")}
    (tmp_path / "shapes.yaml").write_text(CONFIG.replace("num_heldout: 5\n", "num_heldout: 12\n", 1))
    argv = ["--config", str(tmp_path / "shapes.yaml"), "--source", json.dumps(source)]
    argv += [f"--{name}={value}" for name, value in paths.items()]
    assert experiment.main(shapes.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "shapes" / "tiny.json").read_text())
    assert record["signals.used"] == 16 and record["signals.heldout.used"] == 12 and record["signals.rejected"] == 0
    for kind in ("mlora_asym", "mlp"):
        assert record[f"{kind}.num_shapes"] == 12 and record[f"{kind}.num_empty"] == 0
        assert record[f"{kind}.iou_median"] > 0.5 and record[f"{kind}.fit_s_per_field"] > 0
    assert record["d2.logistic"] == 1.0 and record["probe.classes"] == "ball, box"
    assert record["meshing.num"] == record["meshing.num_equal"] == 2
    assert record["mlp.difference.iou_low"] <= record["mlp.difference.iou"] <= record["mlp.difference.iou_high"]
    means = [record[f"{kind}.psnr"] for kind in ("mlp", "mlora_asym")]
    assert record["mlp.difference.psnr"] == pytest.approx(means[0] - means[1])
    with Image.open(tmp_path / "small.png") as picture:
        assert picture.mode == "P"
    assert len(table(record).splitlines()) == 5
    before = (tmp_path / "out" / "mlp.scores.json").read_bytes()
    assert experiment.main(shapes.run, argv=argv) == 0  # what is finished is kept
    again = json.loads((tmp_path / "records" / "shapes" / "tiny.json").read_text())
    assert before == (tmp_path / "out" / "mlp.scores.json").read_bytes()
    assert {k: v for k, v in again.items() if "run." not in k} == {k: v for k, v in record.items() if "run." not in k}
    how = {"resolution": 16, "num_points": 200, "seed": 0}
    task = ScoreTask(store=str(tmp_path / "out" / "mlp"), data=paths["data"], source=source | {"split": "test"}, **how)
    with WeightStore.open(task.store) as store:
        rows = [4, 1, 7, 2, 0]
        alone = score_fields(store, open_source(task.data, **task.source), rows, **how)
    together = score_in_processes(task, rows, 2)
    assert {name: values.tolist() for name, values in together.items()} == {k: v.tolist() for k, v in alone.items()}
