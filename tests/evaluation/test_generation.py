"""One piece of code scores samples, held-out fields and baselines: of pictures and of shapes, valid or not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.features import stored_weights
from wsrl.evaluation.generated_pictures import PictureReferences, render_pictures
from wsrl.evaluation.generated_shapes import ShapeReferences, render_points
from wsrl.evaluation.generation import KnownFields, class_scores
from wsrl.evaluation.memorisation import training_noise
from wsrl.evaluation.picture_features import PictureFeatures
from wsrl.evaluation.picture_sets import frechet_distance
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.form import SignalForm
from wsrl.store import WeightStore

MEAN_OF_SQUARES = PictureFeatures(
    name="mean and square",
    sha256="0",
    extract=lambda x: torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3))], 1),
)


@pytest.fixture(scope="module")
def pictures(digits_store):
    """Decoder, training and held-out fields of the store of digits, and what to compare with."""
    with WeightStore.open(digits_store) as store:
        decoder = FieldDecoder.from_store(store)
        train, heldout = (stored_weights(store, np.flatnonzero(store.splits() == name)) for name in ("train", "test"))
        fields = KnownFields(layout=store.layout, decoder=decoder, train=train, heldout=heldout)
        references = PictureReferences.build(fields, MEAN_OF_SQUARES, render_pictures(heldout, decoder))
    return decoder, train, heldout, references


def test_weights_come_in_the_order_of_the_rows(digits_store):
    with WeightStore.open(digits_store) as store:
        rows = np.array([77, 3, 99, 4])
        for place, row in enumerate(rows):
            one = {name: tensor[place] for name, tensor in stored_weights(store, rows).items()}
            assert all(torch.equal(one[name], tensor) for name, tensor in store[int(row)].items())


def test_rendered_pictures_are_those_of_the_decoder(pictures):
    decoder, _, heldout, _ = pictures
    expected = np.stack([np.asarray(image) for image in decoder.images(heldout)])
    assert np.abs(render_pictures(heldout, decoder)[:, 0].numpy() * 255 - expected).max() <= 0.5 + 1e-3


def test_held_out_fields_score_as_real_and_copies_as_copies(pictures):
    _, train, heldout, references = pictures
    same = references.judge(heldout).metrics
    assert same["fd"] == pytest.approx(0, abs=1e-6) and same["precision"] == same["recall"] == 1
    assert same["nearest_ratio"] == same["nearest_ratio_signal"] == 1
    assert (same["num"], same["num_invalid"]) == (20, 0)
    copies = references.judge(train).metrics
    for name in ("nearest_ratio", "nearest_ratio_signal"):
        assert copies[name] == 0
    assert copies["share_nearer"] == copies["share_nearer_signal"] == 1
    layout = references.fields.layout
    flat, mask = layout.flatten(train), layout.trainable()
    noise = [
        references.judge(
            layout.unflatten(training_noise(flat, mask, 80, level, torch.Generator().manual_seed(0)))
        ).metrics
        for level in (0.1, 1.0)
    ]
    assert 0 < noise[0]["nearest_ratio"] < noise[1]["nearest_ratio"] and noise[0]["fd"] < noise[1]["fd"]


def test_fields_that_are_not_finite_are_counted_and_replaced_by_the_worst(pictures):
    decoder, _, heldout, references = pictures
    broken = {name: tensor.clone() for name, tensor in heldout.items()}
    for tensor in broken.values():
        tensor[:5] = torch.nan
    judged = references.judge(broken)
    assert judged.metrics["num"] == 20 and judged.metrics["num_invalid"] == 5
    shown = render_pictures(heldout, decoder)
    shown[:5] = 0.5
    expected = frechet_distance(MEAN_OF_SQUARES(shown), references.reference_features)
    assert judged.metrics["fd"] == pytest.approx(expected)
    assert judged.metrics["share_nearer"] >= 5 / 20 and set(judged.in_weights.closest(20).tolist()) == set(range(5, 20))
    assert judged.metrics["nearest_ratio"] == pytest.approx(
        float(judged.in_weights.distances[5:].sum() / references.weights.heldout.distances.sum())
    )


def test_without_features_there_is_memorisation(pictures):
    _, _, heldout, references = pictures
    scores = PictureReferences.build(references.fields, None, None).judge(heldout).metrics
    assert scores["nearest_ratio"] == 1 and "fd" not in scores
    none = {name: tensor[:0] for name, tensor in heldout.items()}
    with pytest.raises(UserError, match="80 and 0 fields are too few"):
        replace(references.fields, heldout=none)


@pytest.fixture(scope="module")
def shapes():
    """Random small networks about a ball, as shapes."""
    config = RepresentationConfig(
        kind="mlp", field=FieldConfig(width=8, depth=1, encoding="identity", activation="sine", omega=3.0)
    )
    representation = Representation.build(config, in_features=3, out_features=1)
    decoder = FieldDecoder.from_representation(representation, SignalForm(in_features=3, out_features=1))
    layout = representation.layout

    def draw(num, seed):
        flat = layout.flatten(representation.initial(torch.Generator().manual_seed(0)))
        generator = torch.Generator().manual_seed(seed)
        return layout.unflatten(flat + 0.3 * torch.randn(num, layout.num_weights, generator=generator))

    return SimpleNamespace(decoder=decoder, layout=layout, draw=draw)


def test_shapes_without_a_surface_are_counted(shapes):
    train, heldout, samples = shapes.draw(20, 1), shapes.draw(12, 2), shapes.draw(12, 3)
    points = render_points(heldout, shapes.decoder, resolution=12, num_points=64)
    points = points[np.isfinite(points).all(axis=(1, 2))]
    fields = KnownFields(layout=shapes.layout, decoder=shapes.decoder, train=train, heldout=heldout)
    references = ShapeReferences.build(fields, points, resolution=12)
    last = list(samples)[-1]  # the bias of the output: far from zero there is no surface
    samples[last][:4] += 100.0
    next(iter(samples.values()))[4] = torch.nan
    judged = references.judge(samples)
    assert judged.metrics["num"] == 12 and judged.metrics["num_invalid"] >= 5
    assert np.isnan(judged.signals[:5]).all()
    assert {"mmd_cd", "cov", "one_nna", "nearest_ratio", "share_nearer_signal"} <= judged.metrics.keys()
    copies = references.judge(train)
    assert copies.metrics["nearest_ratio"] == 0 and copies.metrics["nearest_ratio_signal"] < 1
    valid = copies.in_signals.indices >= 0
    assert valid.sum() == len(references.train_rows)
    assert (copies.in_signals.indices[valid] == torch.arange(20)[valid]).double().mean() > 0.8  # other points of them


def test_missing_classes_and_unsure_pictures_are_noticed():
    features = PictureFeatures(
        name="three pixels",
        sha256="0",
        extract=lambda x: x,
        classify=lambda x: 9 * x.flatten(1),
        label_names=("a", "b", "c"),
    )
    real = torch.eye(3).reshape(3, 1, 1, 3)
    good = class_scores(features, real.repeat(5, 1, 1, 1), real)
    assert good["num_classes_seen"] == good["num_classes"] == 3 and good["class_entropy"] == pytest.approx(1)
    assert good["top_probability"] == pytest.approx(good["top_probability_real"])
    collapsed = class_scores(features, 0.5 * real[:1].repeat(5, 1, 1, 1), real)
    assert collapsed["num_classes_seen"] == 1 and collapsed["class_entropy"] == 0
    assert collapsed["top_probability"] < good["top_probability"]
