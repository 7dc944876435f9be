"""Sources of every kind, opened small; those whose Debian data are absent are skipped with that reason."""

import gzip
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from shape_files import cube, write_catalogue

from wsrl.signals import open_source
from wsrl.signals.sources.fashion_mnist import DEBIAN_ROOT
from wsrl.signals.sources.noto_emoji import EMOJI_TEST, FONT

SOURCE_KINDS = ("digits", "fashion-mnist", "fashion-mnist-own", "noto-emoji", "folder", "npy", "npz")
SHAPE_KINDS = ("solids", "furniture-own", "meshes", "shapenet")


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


@pytest.fixture
def mesh_folder(tmp_path):
    """A folder of meshes in all formats, with splits and classes."""
    root = tmp_path / "meshes"
    ball = trimesh.creation.icosphere(subdivisions=1)
    meshes = {
        "train/box/a.obj": cube(),
        "train/box/b.PLY": cube(2),
        "train/ball/c.stl": ball,
        "test/box/d.off": cube(3),
    }
    for name, mesh in (meshes | {"test/ball/e.glb": ball}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh.export(path, file_type=path.suffix[1:].lower())
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(cube())).items():
        (root / "test/box" / name.replace("model", "f")).write_bytes(data)
    return root


@pytest.fixture
def shapenet_root(tmp_path):
    """A folder in ShapeNet's layout, versions 1 and 2, known and unknown synsets, with its table of splits."""
    root = tmp_path / "shapenet"
    for name in ("03001627/bb/models/model_normalized.obj", "03001627/aa/models/model_normalized.obj"):
        (root / name).parent.mkdir(parents=True)
        cube().export(root / name)
    for name in ("02691156/cc/model.obj", "12345678/dd/model.obj"):
        (root / name).parent.mkdir(parents=True)
        cube(2).export(root / name)
    rows = ["1,03001627,x,aa,train", "2,03001627,x,bb,test", "3,2691156,x,cc,val"]
    (root / "all.csv").write_text("id,synsetId,subSynsetId,modelId,split\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture
def catalogue(tmp_path):
    """A catalogue of four cubes."""
    text = trimesh.exchange.obj.export_obj(cube())
    models = {name: (category, text) for name, category in zip("abcd", ("Kitchen", "Office", "Kitchen", "Lights"))}
    write_catalogue(tmp_path / "Own.sh3f", models)
    return tmp_path / "Own.sh3f"


@pytest.fixture
def few_points(tmp_path):
    """Options that make the preparation of a shape quick."""
    numbers = {"num_near": 60, "num_uniform": 40, "num_surface": 50, "num_heldout": 30}
    return numbers | {"cache": str(tmp_path / "cache")}


@pytest.fixture(params=SHAPE_KINDS)
def opened_shapes(request):
    """How to open each kind of source of shapes: a function of its options."""
    return shape_opener(request.param, request)


@pytest.fixture(params=SOURCE_KINDS + SHAPE_KINDS)
def opened_any(request, tmp_path):
    """How to open each kind of source, of pictures or of shapes: a function of its options."""
    opener = shape_opener if request.param in SHAPE_KINDS else picture_opener
    return opener(request.param, request)


@pytest.fixture(params=SOURCE_KINDS)
def opened(request):
    """How to open each kind of source of pictures: a function of its options."""
    return picture_opener(request.param, request)


def shape_opener(kind, request):
    """How to open a kind of source of shapes."""
    few = request.getfixturevalue("few_points")
    if kind == "solids":
        return lambda **options: open_source("solids", **few, **options)
    if kind == "furniture-own":
        path = request.getfixturevalue("catalogue")
        return lambda **options: open_source("furniture", path=path, **few, **options)
    root = request.getfixturevalue({"meshes": "mesh_folder", "shapenet": "shapenet_root"}[kind])
    return lambda **options: open_source(root, **few, **options)


def picture_opener(kind, request):
    """How to open a kind of source of pictures."""
    tmp_path = request.getfixturevalue("tmp_path")
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
