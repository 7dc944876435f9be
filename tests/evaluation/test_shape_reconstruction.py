"""Stored fields of balls are meshed and scored; a field without a surface is counted."""

import numpy as np
import pytest
import torch
import trimesh

from wsrl.errors import UserError
from wsrl.evaluation.features import d2_features
from wsrl.evaluation.shape_reconstruction import score_fields, summarise_scores
from wsrl.evaluation.shapes import DIAGONAL
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.progress import Progress
from wsrl.signals.shapes.shape import ShapeOptions, prepare_shape, to_signal
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

NUM = 6
EMPTY = 4
SMALL = {"num_near": 1000, "num_uniform": 1000, "num_surface": 3000, "num_heldout": 4000}


class Ellipsoids(Source):
    """Ellipsoids of growing thickness; the even ones are for training."""

    def __init__(self):
        super().__init__(
            name="ellipsoids",
            ids=[f"ellipsoids/{i}" for i in range(NUM)],
            labels=[("thin", "thick")[i // (NUM // 2)] for i in range(NUM)],
            splits=[("train", "test")[i % 2] for i in range(NUM)],
            form=ShapeOptions(**SMALL).form,
            options=ShapeOptions(**SMALL),
            details={},
        )
        self._prepared = [self._prepare(position) for position in range(NUM)]

    def _prepare(self, position):
        mesh = trimesh.creation.icosphere(subdivisions=2)
        mesh.apply_scale((1.0, 1.0, 0.4 + 0.1 * position))
        return prepare_shape(mesh, self.options, seed=position)

    def read(self, position, *, id, label, split):
        return to_signal(self._prepared[position], self.options, id=id, label=label, split=split)


@pytest.fixture(scope="module")
def source():
    return Ellipsoids()


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    """Fields of all ellipsoids, one of which lost its weights: it is the same everywhere."""
    directory = tmp_path_factory.mktemp("ellipsoids") / "store"
    network = FieldConfig(width=16, depth=2, encoding="identity", activation="sine", omega=3.0)
    representation = Representation.build(RepresentationConfig(kind="mlp", field=network), **source.form.sizes)
    create_or_resume(
        directory,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=None,
        source=source.description,
        fit={},
        num_signals=NUM,
        num_shards=1,
        label_names=source.label_names,
    )
    config = FitConfig(steps=150, learning_rate=0.02, points_per_step=500)
    with ShardWriter(directory, 0) as writer:
        results = list(fit(representation, read_signals(source, writer.indices), config))
        lost = next(result for result in results if result.index == EMPTY)
        for tensor in lost.weights.values():
            tensor.zero_()
        writer.write_segment(results)
        writer.finish()
    finalize(directory)
    with WeightStore.open(directory) as opened:
        yield opened


def test_fields_are_scored_against_their_own_shapes(store, source):
    how = {"resolution": 32, "num_points": 2000, "seed": 0}
    scores = score_fields(store, source, range(NUM), **how)
    assert scores["empty"].tolist() == [float(row == EMPTY) for row in range(NUM)]
    good = scores["empty"] == 0
    assert (scores["iou"][good] > 0.9).all() and (scores["chamfer_l1"][good] < 0.04).all()
    assert scores["iou"][EMPTY] == 0 and scores["chamfer_l1"][EMPTY] == DIAGONAL
    # Neither the order nor the company of a shape changes its scores.
    again = score_fields(store, source, [3, 1], **how)
    assert {name: values[[3, 1]].tolist() for name, values in scores.items()} == {
        name: values.tolist() for name, values in again.items()
    }


class Counted(Progress):
    done = 0

    def advance(self, number, note=""):
        Counted.done += number


def test_summary_counts_empty_meshes_and_gives_each_split(store, source):
    scores = score_fields(store, source, range(NUM), resolution=16, num_points=500, seed=0, shown=Counted())
    assert Counted.done == NUM
    found = summarise_scores(scores, store.splits())
    assert found["num_shapes"] == NUM and found["train.num_shapes"] == found["test.num_shapes"] == NUM // 2
    assert found["num_empty"] == found["train.num_empty"] == 1 and found["test.num_empty"] == 0
    assert found["iou_mean"] == pytest.approx(scores["iou"].mean())
    assert found["test.f_score_median"] == pytest.approx(np.median(scores["f_score"][store.splits() == "test"]))
    assert found["chamfer_l1_mean"] > DIAGONAL / NUM
    assert found["threshold"] == 0.02


def test_an_iou_that_says_nothing_is_left_out_and_counted():
    scores = {name: np.ones(3) for name in ("chamfer_l1", "chamfer_l2_squared", "f_score", "normal_consistency")}
    scores |= {"iou": np.array([0.5, np.nan, 0.7]), "f_score_ceiling": np.full(3, np.nan), "empty": np.zeros(3)}
    found = summarise_scores(scores, np.array(["", "", ""]))
    assert found["iou_mean"] == pytest.approx(0.6) and found["num_without_volume"] == 1
    assert "f_score_ceiling_mean" not in found and "train.iou_mean" not in found


def test_d2_tells_shapes_apart_and_repeats(store, source):
    assert store.form.is_shape
    features = d2_features(store, source, np.array([0, 5]), seed=0)
    assert features.shape == (2, 64) and torch.allclose(features.sum(dim=1), torch.ones(2))
    assert (features[0] - features[1]).abs().max() > 5e-3
    assert torch.equal(features[1], d2_features(store, source, np.array([5]), seed=0)[0])


def test_another_source_is_refused(store, source, monkeypatch):
    monkeypatch.setattr(source, "ids", source.ids[::-1])
    with pytest.raises(UserError, match="the source that the store was built from"):
        score_fields(store, source, range(NUM), resolution=16, num_points=500, seed=0)
