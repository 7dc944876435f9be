"""The form of signals: what it says, its round trip, and what a store that does not say it tells of it."""

import json

import pytest

from wsrl.signals.form import SignalForm

PICTURE = SignalForm(in_features=2, out_features=3, grid=(28, 32))
SHAPE = SignalForm(in_features=3, out_features=1, quantity="sdf", value_range=(-0.1, 0.1))


@pytest.mark.parametrize("form", [PICTURE, SHAPE])
def test_it_comes_back_from_json(form):
    assert SignalForm.from_json(json.loads(json.dumps(form.to_json()))) == form


def test_it_tells_a_picture_from_a_shape():
    assert PICTURE.is_picture and not PICTURE.is_shape and not PICTURE.has_inside
    assert SHAPE.is_shape and not SHAPE.is_picture and SHAPE.has_inside
    neither = SignalForm(in_features=3, out_features=4)
    assert not neither.is_shape and not neither.is_picture


def test_an_unknown_quantity_is_refused():
    with pytest.raises(AssertionError, match="heat"):
        SignalForm(in_features=3, out_features=1, quantity="heat")


@pytest.mark.parametrize(
    ("source", "sizes", "form"),
    [
        ({"grid": [28, 32], "channels": 3}, PICTURE.sizes, PICTURE),
        ({"grid": None, "channels": 1, "quantity": "sdf", "options": {"clamp": 0.1}}, SHAPE.sizes, SHAPE),
        (
            {"quantity": "occupancy", "options": {"clamp": 0.1}},
            SHAPE.sizes,
            SignalForm(**SHAPE.sizes, quantity="occupancy"),
        ),
        ({"imported": "mlp"}, SHAPE.sizes, SignalForm(**SHAPE.sizes)),  # of others' fields the quantity is not known
        ({"grid": [28, 32], "channels": 3}, {}, PICTURE),  # rows that are no fields
    ],
)
def test_what_a_store_of_schema_1_tells(source, sizes, form):
    assert SignalForm.from_description(source, sizes) == form


def test_sources_describe_their_form(opened_any):
    source = opened_any(limit=1)
    assert SignalForm.from_description(source.description, source.form.sizes) == source.form
