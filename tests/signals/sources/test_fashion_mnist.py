"""Fashion-MNIST is read from IDX files, the right place is found, and damage is told."""

import gzip

import numpy as np
import pytest

from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm
from wsrl.signals.sources import fashion_mnist
from wsrl.signals.sources.fashion_mnist import DEBIAN_ROOT


@pytest.mark.skipif(not DEBIAN_ROOT.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_real_files():
    source = open_source("fashion-mnist")
    assert len(source) == 70_000 and source.form == SignalForm(in_features=2, out_features=1, grid=(28, 28))
    assert source.splits().count("train") == 60_000 and source.ids[60_000] == "fashion-mnist/test/00000"
    first = source[source.ids.index("fashion-mnist/train/00017")]
    assert first.label == "T-shirt/top" and first.values.max() > 0.9
    assert all(source.labels().count(name) == 7000 for name in source.label_names)
    assert source.description["sha256"] == "0fbbfcb392782b3b702472ead3688778e1509e8cf40f5c24d9d3303618b193ab"


def test_values_labels_and_splits(fashion_root):
    source = open_source("fashion-mnist", root=fashion_root)
    assert len(source) == 10 and source.ids[6] == "fashion-mnist/test/00000"
    assert source.labels()[:2] == ["T-shirt/top", "Trouser"] and source.splits() == ["train"] * 6 + ["test"] * 4
    with gzip.open(fashion_root / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784)
    assert np.array_equal(np.rint(source[7].values.numpy()[:, 0] * 255), raw[1])
    assert "root" not in source.description["options"]


def test_found_through_the_environment(fashion_root, tmp_path, monkeypatch):
    fashion_root.rename(tmp_path / "fashion_mnist")
    monkeypatch.setenv("WSRL_DATA", str(tmp_path))
    assert len(open_source("fashion-mnist")) == 10


def test_missing_files_name_the_package(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"not in .*empty\. Allowed: .*apt-get install dataset-fashion-mnist, or download"
    ):
        open_source("fashion-mnist", root=tmp_path / "empty")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_ROOT", tmp_path / "debian")
    with pytest.raises(UserError, match=r"not in data/fashion_mnist nor in .*debian"):
        open_source("fashion-mnist")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-30], r"t10k-images-idx3-ubyte\.gz is damaged .*fetch the file again"),
        (lambda data: b"no gzip", r"t10k-images-idx3-ubyte\.gz is damaged"),
        (lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:], "t10k-images-idx3-ubyte.gz is"),
        (lambda data: gzip.compress(b"\0\0\x08"), "is no IDX file of unsigned bytes with 3 axes"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "is no IDX file of unsigned bytes with 3 axes"),
    ],
)
def test_damaged_files(fashion_root, damage, message):
    path = fashion_root / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        open_source("fashion-mnist", root=fashion_root)


def test_labels_of_other_pictures(fashion_root):
    (fashion_root / "train-labels-idx1-ubyte.gz").write_bytes((fashion_root / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(UserError, match=r"the train labels in .* do not fit the pictures"):
        open_source("fashion-mnist", root=fashion_root)
