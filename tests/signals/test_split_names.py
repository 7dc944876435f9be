"""Splits have one name each, however they are spelled."""

import pytest

from wsrl.errors import UserError
from wsrl.signals import open_source
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


def test_options_take_any_spelling():
    plain = open_source("digits", split="test", limit={"train": 3, "test": 2})
    spelled = open_source("digits", split="Testing", limit={"training": 3, "TEST": 2})
    assert spelled.ids == plain.ids and len(plain) == 2 and spelled.description == plain.description


def test_a_split_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="names a split twice"):
        open_source("digits", limit={"valid": 10, "val": 5})
