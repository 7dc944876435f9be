"""The digits keep their values, ids and split for ever."""

from collections import Counter

import numpy as np
from sklearn.datasets import load_digits

from wsrl.signals import open_source
from wsrl.signals.form import SignalForm


def test_values_are_scikit_learns():
    source, bunch = open_source("digits"), load_digits()
    assert len(source) == 1797 and source.form == SignalForm(in_features=2, out_features=1, grid=(8, 8))
    assert source.labels() == [str(digit) for digit in bunch.target]
    for index in (0, 17, 1796):
        assert np.array_equal(source[index].values.numpy().reshape(8, 8) * 16, bunch.images[index])


def test_ids_and_split_are_fixed():
    source = open_source("digits")
    assert source.ids[17] == "digits/00017" and source.label_names == tuple("0123456789")
    assert Counter(source.splits()) == {"train": 1420, "test": 377}
    assert [index for index, split in enumerate(source.splits()[:20]) if split == "test"] == [0, 17, 18]
    assert source.description["sha256"] == "9f578524b6cec1fc800cc52dfc87ebe56264983d490aa72a4bd928ba2570ec77"
