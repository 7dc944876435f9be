"""Labelled pictures as tensors: their form, their splits, and the order of the classes."""

import pytest
import torch

from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.pictures.labelled import labelled_pictures
from wsrl.signals.sources.fashion_mnist import CLASSES


def test_where_there_is_no_training_split_the_first_one_serves():
    source = open_source("digits", limit=30, split="test")
    examples = labelled_pictures(source, limit=20)
    assert set(examples) == {"train", "test"} and examples["train"] is examples["test"]
    pictures, classes = examples["train"]
    assert pictures.shape == (20, 1, 8, 8) and pictures.dtype == torch.float32
    assert torch.equal(pictures[3, 0].flatten(), source[3].values[:, 0].float())
    assert [source.label_names[number] for number in classes] == source.labels()[:20]


def test_classes_have_the_numbers_of_their_authors():
    source = open_source("fashion-mnist", limit={"train": 12, "test": 6})
    assert source.class_names == CLASSES != source.label_names == tuple(sorted(CLASSES))
    examples = labelled_pictures(source, limit=5)
    assert set(examples) == {"train", "test"}
    for split, (pictures, classes) in examples.items():
        labels = [label for label, own in zip(source.labels(), source.splits()) if own == split]
        assert pictures.shape == (5, 1, 28, 28) and [CLASSES[number] for number in classes] == labels[:5]


def test_shapes_are_refused():
    with pytest.raises(UserError, match=r"solids has no pictures\. Allowed: a source of pictures with labels"):
        labelled_pictures(open_source("solids", num=2))
