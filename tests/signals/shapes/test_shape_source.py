"""Shapes are prepared once, whoever asks and however many processes work; a bad one stops no other."""

import os
import signal

import numpy as np
import pytest
import torch
import trimesh
from shape_files import cube

from wsrl.errors import SignalError
from wsrl.signals import open_source
from wsrl.signals.shapes.shape import Content, ShapeOptions
from wsrl.signals.shapes.shape_source import ShapeSource


class Cubes(ShapeSource):
    """Cubes with bad ones among them, named by what is wrong with them."""

    def __init__(self, kinds, options):
        self.kinds = kinds
        ids = [f"{kind}/{index}" for index, kind in enumerate(kinds)]
        none = [None] * len(kinds)
        super().__init__(name="cubes", ids=ids, labels=none, splits=none, options=options, details={})

    def content(self, position):
        kind = self.kinds[position]
        if kind == "gone":
            raise SignalError("the file is gone")
        return Content(f"{kind} {position}".encode(), lambda: make(kind))


def make(kind):
    """A cube, or trouble."""
    if kind == "bad":
        raise SignalError("it is bad")
    if kind == "strange":
        raise IndexError("nobody thought of this")
    if kind == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return cube()


@pytest.fixture
def cubes(few_points):
    return lambda *kinds, **options: Cubes(kinds, ShapeOptions(**(few_points | options)))


def test_prepared_once(cubes, tmp_path):
    source = cubes("good", "good")
    first = source[0]
    files = list((tmp_path / "cache").rglob("*.h5"))
    assert len(files) == 1
    modified = files[0].stat().st_mtime_ns
    assert source[0].sha256() == first.sha256() and files[0].stat().st_mtime_ns == modified
    assert source[1].sha256() != first.sha256(), "each shape has a seed of its own"
    files[0].write_bytes(files[0].read_bytes()[:-100])
    assert source[0].sha256() == first.sha256() and files[0].stat().st_mtime_ns > modified


def test_points_depend_on_seed_and_id_alone(cubes):
    alone, among = cubes("good"), cubes("good", "good", "bad")
    assert torch.equal(alone[0].coords, among[0].coords)
    assert not torch.equal(alone[0].coords, cubes("good", seed=1)[0].coords)


def test_reasons_and_records(cubes):
    source = cubes("good", "bad", "strange", "gone")
    for index, message in ((1, "it is bad"), (2, r"cannot be prepared \(IndexError: nobody"), (3, "is gone")):
        with pytest.raises(SignalError, match=message):
            source[index]
    records = [source.record(index) for index in range(4)]
    assert [record.verdict for record in records] == ["used", "rejected", "rejected", "rejected"]
    assert records[0].reasons == () and records[0].quality["seconds"] > 0 and records[1].reasons == ("it is bad",)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_prepare_tells_all(cubes, tmp_path, processes):
    kinds = ("good", "bad", "gone", "good", "strange")
    source, told = cubes(*kinds), []
    before = source[3].sha256()
    source.prepare(range(5), processes, told.append)
    assert [source[0].sha256(), before] == [cubes(*kinds, cache=str(tmp_path / "other"))[i].sha256() for i in (0, 3)]
    assert sum(told) == 5 and all(number >= 1 for number in told)
    assert len(list((tmp_path / "cache").rglob("*.h5"))) == 4, "all but the one that has no bytes"
    source.prepare(range(5), processes, told.append)
    assert sum(told) == 10 and not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.slow
def test_a_process_that_dies_takes_no_other_shape_along(cubes):
    source, told = cubes("good", "deadly", "good", "bad", "good"), []
    source.prepare(range(5), 2, told.append)
    assert sum(told) == 5
    verdicts = [source.record(index).verdict for index in range(5)]
    assert verdicts == ["used", "rejected", "used", "rejected", "used"]
    with pytest.raises(SignalError, match=r"the process that prepared it died twice.*to try it again remove"):
        source[1]


def test_mesh_and_options_change_the_file(cubes, few_points, tmp_path):
    (tmp_path / "in").mkdir()
    cube().export(tmp_path / "in/a.obj")
    source = open_source(tmp_path / "in", **few_points)
    before = source[0].sha256()
    more = open_source(tmp_path / "in", **(few_points | {"num_uniform": 41}))
    assert len(more[0].coords) == len(source[0].coords) + 1
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "in/a.obj")
    again = open_source(tmp_path / "in", **few_points)
    assert again[0].sha256() != before
    assert np.allclose(sorted(again[0].surface.abs().amax(dim=0)), 0.9 * np.array([1, 2, 3]) / np.sqrt(14), atol=1e-6)
