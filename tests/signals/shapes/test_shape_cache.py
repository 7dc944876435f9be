"""Prepared shapes on the disk: complete or not there, and never another shape's."""

import os
from dataclasses import fields

import numpy as np
import pytest
import trimesh

from wsrl.errors import UserError
from wsrl.signals.shapes.shape import ShapeOptions, prepare_shape, rejected
from wsrl.signals.shapes.shape_cache import cache_key, cache_path, load_prepared, save_prepared

OPTIONS = ShapeOptions(num_near=50, num_uniform=50, num_surface=50, num_heldout=50)


@pytest.fixture(scope="module")
def shape():
    return prepare_shape(trimesh.creation.box(), OPTIONS, 0)


def same(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def test_what_is_kept_comes_back(tmp_path, shape):
    path = cache_path(tmp_path, cache_key(b"box", OPTIONS.sampling(), 0))
    assert load_prepared(path) is None
    save_prepared(path, shape)
    assert same(load_prepared(path), shape)
    assert load_prepared(path).points.dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_rejections_are_kept(tmp_path):
    path = tmp_path / "x" / "y.h5"
    save_prepared(path, rejected("it has no faces", {"num_faces": 0}))
    kept = load_prepared(path)
    assert (kept.verdict, kept.reasons, kept.quality) == ("rejected", ("it has no faces",), {"num_faces": 0})


def test_the_key_tells_content_options_and_seed_apart():
    sampling = OPTIONS.sampling()
    keys = {
        cache_key(b"box", sampling, 0),
        cache_key(b"ball", sampling, 0),
        cache_key(b"box", sampling | {"num_near": 51}, 0),
        cache_key(b"box", sampling, 1),
    }
    assert len(keys) == 4
    assert cache_key(b"box", dict(reversed(sampling.items())), 0) in keys


def test_damage_anywhere_is_seen(tmp_path, shape):
    path = tmp_path / "shape.h5"
    save_prepared(path, shape)
    whole = path.read_bytes()
    seen = 0
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        kept = load_prepared(path)
        assert kept is None or same(kept, shape)  # bytes that mean nothing may change
        seen += kept is None
        path.write_bytes(whole[:place])
        assert load_prepared(path) is None
    assert seen > 10


def test_a_failed_write_leaves_the_old_file(tmp_path, shape, monkeypatch):
    path = tmp_path / "shape.h5"
    save_prepared(path, shape)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_prepared(path, rejected("other"))
    assert same(load_prepared(path), shape)
    assert [file.name for file in tmp_path.iterdir()] == ["shape.h5"]
