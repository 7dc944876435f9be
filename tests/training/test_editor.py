"""Editors change fields by their weights: from the identity on, equivariant where they should be, saved whole."""

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_dilation

from wsrl.encoders.editors import START_SCALE, WeightEditor, build_editor
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.signal import grid_coords
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.training.editor import EditExamples, EditTrainingConfig, dilate, rendered, train_editor

GRID = (7, 9)
OPTIONS = {"unf": {"channels": 8, "depth": 2, "num_frequencies": 2}, "mlp": {"hidden": (16,)}}


def made(kind="mlp", num=32):
    """A small representation, and random fields of it with their own dilated pictures."""
    siren = FieldConfig(width=6, depth=2, encoding="identity", activation="sine", omega=6.0)
    config = RepresentationConfig(kind=kind, start="random", field=siren)
    representation = Representation.build(config, in_features=2, out_features=1)
    coords = grid_coords(GRID)
    weights = representation.initial(torch.Generator().manual_seed(0), num=num)
    return representation, EditExamples(weights, coords, dilate(representation.evaluate(weights, coords), GRID))


def editor_of(kind, representation, examples):
    return build_editor(
        kind, OPTIONS[kind], WeightStatistics.from_batches(representation.layout, [examples.weights])
    ).eval()


def mse(representation, examples, editor=None):
    return float((rendered(representation, examples, editor) - examples.targets).square().mean())


@pytest.mark.parametrize("size", [3, 5])
def test_dilation_is_that_of_scipy(size):
    pictures = torch.rand(3, GRID[0] * GRID[1], 2, generator=torch.Generator().manual_seed(0))
    expected = grey_dilation(pictures.reshape(3, *GRID, 2).numpy(), size=(1, size, size, 1))
    assert np.array_equal(dilate(pictures, GRID, size).reshape(3, *GRID, 2).numpy(), expected)


@pytest.mark.parametrize("kind", OPTIONS)
def test_training_starts_at_leaving_the_field_as_it_is_and_learns(kind):
    representation, examples = made()
    editor = editor_of(kind, representation, examples)
    unchanged = mse(representation, examples)
    assert mse(representation, examples, editor) == pytest.approx(unchanged, rel=20 * START_SCALE)
    with torch.no_grad():
        editor.scale.zero_()
    assert all(torch.equal(edited, examples.weights[name]) for name, edited in editor(examples.weights).items())
    editor = editor_of(kind, representation, examples)
    train_editor(editor, representation, examples, EditTrainingConfig(epochs=40, batch_size=16, learning_rate=1e-2))
    assert mse(representation, examples, editor) < 0.8 * unchanged


def test_the_functional_is_equivariant_and_the_perceptron_is_not():
    representation, examples = made()
    spec = PermutationSpec.from_layout(representation.layout)
    chosen = spec.random_permutation(torch.Generator().manual_seed(1), num=len(examples))
    errors = {}
    for kind in OPTIONS:
        editor = editor_of(kind, representation, examples)
        with torch.no_grad():
            before, after = editor(examples.weights), editor(spec.apply(examples.weights, chosen))
        expected = spec.apply(before, chosen)
        size = max((before[name] - examples.weights[name]).abs().max() for name in before)
        errors[kind] = float(max((after[name] - expected[name]).abs().max() for name in after) / size)
    assert errors["unf"] < 1e-3  # rounding of the weights, beside edits of a hundredth of their size
    assert errors["mlp"] > 0.1


def test_frozen_weights_stay_as_they_are():
    representation, examples = made("mlp_asym")
    editor = editor_of("unf", representation, examples)
    with torch.no_grad():
        editor.scale.fill_(1.0)
    before, after = (representation.layout.flatten(w) for w in (examples.weights, editor(examples.weights)))
    trainable = representation.layout.trainable()
    assert not bool(trainable.all())
    assert torch.equal(after[:, ~trainable], before[:, ~trainable])
    assert bool((after[:, trainable] != before[:, trainable]).float().mean() > 0.9)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_saved_editor_edits_alike(kind, tmp_path):
    representation, examples = made(num=8)
    editor = editor_of(kind, representation, examples)
    editor.save_pretrained(tmp_path / "editor")
    assert sorted(path.name for path in (tmp_path / "editor").iterdir()) == ["config.json", "model.safetensors"]
    loaded = WeightEditor.from_pretrained(tmp_path / "editor")
    expected = editor(examples.weights)
    assert all(torch.equal(edited, expected[name]) for name, edited in loaded(examples.weights).items())
    (tmp_path / "editor" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not hold an editor of weights"):
        WeightEditor.from_pretrained(tmp_path / "editor")


def test_the_same_seeds_give_the_same_editor():
    representation, examples = made(num=16)
    found = []
    for _ in range(2):
        editor = editor_of("mlp", representation, examples)
        config = EditTrainingConfig(epochs=2, batch_size=8, num_points=20)
        found.append(train_editor(editor, representation, examples, config)(examples.weights))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_wrong_options_are_refused():
    representation, examples = made(num=8)
    statistics = WeightStatistics.from_batches(representation.layout, [examples.weights])
    with pytest.raises(UserError, match="unknown editor 'cnn'"):
        build_editor("cnn", {}, statistics)
    with pytest.raises(UserError, match="depth is 0"):
        build_editor("unf", {"depth": 0}, statistics)
    with pytest.raises(UserError, match="epochs is 0"):
        EditTrainingConfig(epochs=0)
