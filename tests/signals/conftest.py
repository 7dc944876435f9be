"""Sources of every kind, opened small; those whose Debian data are absent are skipped with that reason."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from wsrl.signals import open_source
from wsrl.signals.sources.fashion_mnist import DEBIAN_ROOT
from wsrl.signals.sources.noto_emoji import EMOJI_TEST, FONT

SOURCE_KINDS = ("digits", "fashion-mnist", "fashion-mnist-own", "noto-emoji", "folder", "npy", "npz")


def write_idx(path, array):
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.fixture
def fashion_root(tmp_path):
    """A folder with Fashion-MNIST's files, of 6 + 4 random pictures."""
    generator = np.random.default_rng(0)
    root = tmp_path / "idx"
    root.mkdir()
    for prefix, num in (("train", 6), ("t10k", 4)):
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", generator.integers(0, 256, (num, 28, 28), dtype=np.uint8))
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", np.arange(num, dtype=np.uint8))
    return root


@pytest.fixture
def picture_folder(tmp_path):
    """A folder of pictures of several kinds, with splits and classes."""
    generator = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for name in ("train/cat/b.png", "train/cat/a.JPG", "train/dog/c.webp", "test/dog/d.bmp", "test/cat/e.tiff"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(params=SOURCE_KINDS)
def opened(request, tmp_path):
    """How to open each kind of source: a function of its options."""
    kind = request.param
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    if kind == "fashion-mnist" and not DEBIAN_ROOT.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    if kind == "noto-emoji" and not (FONT.is_file() and EMOJI_TEST.is_file()):
        pytest.skip("the Debian packages fonts-noto-color-emoji and unicode-data are not installed")
    if kind == "npy":
        np.save(tmp_path / "grey.npy", images)
        return lambda **options: open_source(tmp_path / "grey.npy", **options)
    if kind == "npz":
        labels, splits = list("abcabca"), ["train"] * 5 + ["test"] * 2
        np.savez(tmp_path / "named.npz", images=images[..., None].repeat(3, -1), labels=labels, splits=splits)
        return lambda **options: open_source(tmp_path / "named.npz", **options)
    if kind == "folder":
        root = request.getfixturevalue("picture_folder")
        return lambda **options: open_source(root, **options)
    if kind == "fashion-mnist-own":
        root = request.getfixturevalue("fashion_root")
        return lambda **options: open_source("fashion-mnist", root=root, **options)
    return lambda **options: open_source(kind, **options)
