"""ShapeNet's layout: both versions, splits from its table or from lists, names of classes."""

import pytest

from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.sources.shapenet import NAMES, ShapeNet, ShapeNetOptions


def test_order_labels_and_splits(shapenet_root, few_points):
    source = open_source(shapenet_root, **few_points)
    assert isinstance(source, ShapeNet) and len(NAMES) == 55
    assert source.ids == ["02691156/cc", "03001627/aa", "03001627/bb", "12345678/dd"]
    assert source.labels() == ["airplane", "chair", "chair", "12345678"]
    assert source.splits() == ["val", "train", "test", None]
    assert all((signal.values < 0).any() for signal in source)


def test_lists_of_models(shapenet_root):
    (shapenet_root / "all.csv").unlink()
    (shapenet_root / "03001627/train.lst").write_text("bb\n\n")
    (shapenet_root / "03001627/test.lst").write_text("aa\nsomeone-else\n")
    assert open_source(shapenet_root).splits() == [None, "test", "train", None]


def test_chosen_synsets(shapenet_root):
    for synsets in ("chair", ["03001627"], ("chair", "03001627")):
        assert open_source(shapenet_root, synsets=synsets).ids == ["03001627/aa", "03001627/bb"]
    with pytest.raises(UserError, match=r"has no synset 03797390\. Allowed: 02691156, 03001627, 12345678"):
        open_source(shapenet_root, synsets="mug")
    with pytest.raises(UserError, match=r"synsets is 'mugs'\. Allowed: ids of eight digits, or airplane"):
        open_source(shapenet_root, synsets="mugs")


def test_normalised_file_goes_first(shapenet_root):
    (shapenet_root / "03001627/aa/model.obj").write_text("")
    assert open_source(shapenet_root).ids.count("03001627/aa") == 1
    assert (open_source(shapenet_root, synsets="chair").content(0)).data.startswith(b"obj\0#")


def test_wrong_tables(shapenet_root, tmp_path):
    (shapenet_root / "all.csv").write_text("id,model\n1,aa\n")
    with pytest.raises(UserError, match=r"all\.csv has no column synsetId, modelId, split"):
        open_source(shapenet_root)
    (shapenet_root / "all.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"all\.csv cannot be read as text"):
        open_source(shapenet_root)
    (tmp_path / "none/03001627").mkdir(parents=True)
    with pytest.raises(UserError, match="has no models"):
        ShapeNet(tmp_path / "none", ShapeNetOptions())
