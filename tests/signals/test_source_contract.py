"""What every source promises, checked on all of them."""

import json
import pickle

import pytest
import torch

from wsrl.errors import UserError
from wsrl.signals import Signal
from wsrl.signals.signal import grid_coords


def test_signals_have_the_stated_form(opened):
    source = opened(limit=3)
    form = source.form
    for index, signal in enumerate(source):
        assert isinstance(signal, Signal) and signal.id == source.ids[index]
        assert signal.values.dtype == torch.float32 and signal.values.shape == (
            form.grid[0] * form.grid[1],
            form.out_features,
        )
        assert 0 <= signal.values.min() <= signal.values.max() <= 1
        assert signal.form == form and signal.coords is grid_coords(form.grid)
        assert signal.label == source.labels()[index] and signal.split == source.splits()[index]


def test_twice_the_same(opened_any):
    first, second = opened_any(limit=3), opened_any(limit=3)
    assert first.ids == second.ids and first.description == second.description
    assert [signal.sha256() for signal in first] == [signal.sha256() for signal in second]
    assert first[0].sha256() == first[0].sha256() != first[1].sha256()


def test_names_are_stable_and_unique(opened_any):
    source = opened_any()
    assert len(source) == len(source.ids) == len(set(source.ids)) == len(source.labels()) == len(source.splits())
    assert list(source.label_names) == sorted({label for label in source.labels() if label is not None})
    assert all(id.isprintable() and "\\" not in id and not id.startswith("/") for id in source.ids)


def test_shapes_have_the_stated_form(opened_shapes, few_points):
    source = opened_shapes(limit=1)
    assert source.form.grid is None and source.form.is_shape and source.form.quantity == "sdf"
    signal = source[0]
    assert signal.id == source.ids[0] and signal.label == source.labels()[0] and signal.split == source.splits()[0]
    assert signal.coords.shape == (160, 3) and signal.values.shape == (160, 1) and signal.weights.shape == (160,)
    assert signal.coords.dtype == signal.values.dtype == torch.float32 and signal.form == source.form
    assert signal.coords.abs().max() <= 1 and signal.values.abs().max() <= 0.1 and signal.values.min() < 0
    assert signal.surface.shape == signal.normals.shape == (50, 3) and signal.surface.norm(dim=1).max() <= 0.9 + 1e-6
    assert json.loads(json.dumps(source.description)) == source.description
    assert str(few_points["cache"]) not in json.dumps(source.description)
    inside = opened_shapes(limit=1, quantity="occupancy")[0]
    assert torch.equal(inside.values == 1, signal.values < 0) and set(inside.values.unique().tolist()) <= {0.0, 1.0}


def test_description_is_plain_json(opened):
    source = opened(limit=2, size=(4, 6), mode="L")
    assert json.loads(json.dumps(source.description)) == source.description
    assert source.description["options"]["size"] == [4, 6] and source.description["name"] == source.name


def test_limit_is_a_prefix_of_each_split(opened_any):
    everything, few = opened_any(), opened_any(limit=2)
    for split in set(everything.splits()):
        whole = [id for id, other in zip(everything.ids, everything.splits()) if other == split]
        assert [id for id, other in zip(few.ids, few.splits()) if other == split] == whole[:2]
    assert (
        few.label_names == everything.label_names
        and few[1].sha256() == everything[everything.ids.index(few.ids[1])].sha256()
    )


def test_split_selects(opened_any):
    everything = opened_any()
    for split in {split for split in everything.splits() if split is not None}:
        part = opened_any(split=split)
        assert part.ids == [id for id, other in zip(everything.ids, everything.splits()) if other == split]
        assert opened_any(limit={split: 1}).ids == part.ids[:1]


def test_unknown_split_is_refused(opened_any):
    for options in ({"split": "nowhere"}, {"limit": {"nowhere": 3}}):
        with pytest.raises(UserError, match=r"has no split 'nowhere'\. Allowed: .*\. What to do: change or drop"):
            opened_any(**options)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_size_and_mode(opened, mode, channels):
    source = opened(limit=1, size=(6, 10), mode=mode)
    assert (source.form.grid, source.form.out_features) == ((6, 10), channels)
    assert source[0].values.shape == (60, channels)
    assert opened(limit=1, size=5).form.grid == (5, 5)


def test_goes_to_another_process(opened_any):
    source = opened_any(limit=2)
    expected = source[1].sha256()
    assert pickle.loads(pickle.dumps(source))[1].sha256() == expected


def test_index_like_a_list(opened_any):
    source = opened_any(limit=2)
    assert source[-1].id == source.ids[-1]
    with pytest.raises(IndexError):
        source[len(source)]


def test_signals_do_not_share_values(opened_any):
    source = opened_any(limit=1)
    before = source[0].sha256()
    source[0].values.fill_(0.25)
    assert source[0].sha256() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 3}, r"has no option colour\. Allowed: limit, split, size, mode"),
        ({"limit": 0}, r"limit is 0\. Allowed: a whole number from 1"),
        ({"limit": True}, "limit is True"),
        ({"limit": {}}, r"limit is \{\}"),
        ({"size": 1}, r"size is 1\. Allowed: one side, or height and width, each from 2 pixels"),
        ({"size": "32"}, "size is '32'"),
        ({"size": (3, 4, 5)}, r"size is \(3, 4, 5\)"),
        ({"mode": "CMYK"}, r"mode is 'CMYK'\. Allowed: L, RGB"),
        ({"split": 3}, "split is 3"),
    ],
)
def test_wrong_options_are_refused(opened, options, message):
    with pytest.raises(UserError, match=message):
        opened(**options)
