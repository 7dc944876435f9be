"""Catalogues of furniture: order, ids, categories, and archives that are not what they should be."""

from collections import Counter

import pytest
from shape_files import cube, write_catalogue
from trimesh.exchange.obj import export_obj

from wsrl.errors import SignalError, UserError
from wsrl.signals import open_source
from wsrl.signals.sources.furniture import FURNITURE, split_of

needs_data = pytest.mark.skipif(not FURNITURE.is_dir(), reason="the Debian package sweethome3d-furniture is absent")


@needs_data
def test_listing():
    source = open_source("furniture")
    assert len(source) == 820 and source.ids[0] == "furniture/blendswap-cc-0/armchair"
    assert source.ids[-1].startswith("furniture/scopia/") and source.labels()[0] == "Office"
    assert len(source.label_names) == 12 and {"Kitchen", "Living room", "Lights"} < set(source.label_names)
    assert Counter(source.splits()) == {"train": 575, "test": 245}
    assert Counter(id.split("/")[1] for id in source.ids)["scopia"] == 395


@needs_data
def test_one_model(few_points):
    source = open_source("furniture", **few_points)
    index = source.ids.index("furniture/scopia/robe")
    signal = source[index]
    assert signal.label == "Bedroom" and signal.verdict == "used" and signal.values.min() < 0
    assert source.record(index).quality["seconds"] > 0


def test_own_catalogue(catalogue, few_points):
    for path in (catalogue, catalogue.parent):
        source = open_source("furniture", path=path, **few_points)
        assert source.ids == [f"furniture/own/{name}" for name in "abcd"]
        assert source.labels() == ["Kitchen", "Office", "Kitchen", "Lights"]
        assert source.splits() == [split_of(id) for id in source.ids]
    kitchen = open_source("furniture", path=catalogue, category="Kitchen", **few_points)
    assert kitchen.ids == ["furniture/own/a", "furniture/own/c"] and kitchen[1].label == "Kitchen"
    with pytest.raises(UserError, match=r"no category 'Garden'\. Allowed: Kitchen, Lights, Office"):
        open_source("furniture", path=catalogue, category="Garden")


def test_bad_models_are_reported_alone(tmp_path, few_points):
    text = export_obj(cube())
    models = {"good": ("A", text), "good ": ("A", text), "bomb": ("A", "#" + " " * (20 << 20))}
    extra = "id#7=x#up\nmodel#7=/../../etc/passwd.obj\nid#8=x#gone\nmodel#8=/own/gone.obj\nmodel#9=/own/scene.dae\n"
    write_catalogue(tmp_path / "bad.sh3f", models, extra)
    source = open_source("furniture", path=tmp_path, **few_points)
    assert source.ids[:3] == [f"furniture/bad/{name}" for name in ("good", "good ", "bomb")]
    assert source.ids[3:] == ["furniture/bad/up", "furniture/bad/gone", "furniture/bad/scene"]
    assert source[0].values.min() < 0 and source[1].values.min() < 0
    for index, message in ((2, "zip bomb"), (3, "leads upwards"), (4, "no such member"), (5, "is no mesh file")):
        with pytest.raises(SignalError, match=message):
            source[index]


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match=r"is missing\. What to do: apt-get install sweethome3d-furniture"):
        open_source("furniture", path=tmp_path / "none")
    with pytest.raises(UserError, match=r"has no \.sh3f files\. What to do: apt-get install"):
        open_source("furniture", path=tmp_path)
    (tmp_path / "a.sh3f").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"a\.sh3f is no zip archive"):
        open_source("furniture", path=tmp_path)
