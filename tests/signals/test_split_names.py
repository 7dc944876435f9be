"""Splits have one name each, however they are spelled."""

import pytest

from wsrl.signals.split_names import known_split, split_name


@pytest.mark.parametrize(
    ("spelled", "ours"),
    [
        ("Train", "train"),
        ("TRAINING", "train"),
        (" train ", "train"),
        ("training set", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("val_split", "val"),
        ("TEST", "test"),
        ("testing", "test"),
    ],
)
def test_usual_spellings(spelled, ours):
    assert known_split(spelled) == split_name(spelled) == ours


@pytest.mark.parametrize("name", ["extra", "device", "contest", "trains", "set"])
def test_other_names_stay(name):
    assert known_split(name) is None and split_name(f" {name}") == name
