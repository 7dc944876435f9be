"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of clothes, from the gzip'd IDX files of its authors."""

import gzip
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from wsrl.errors import UserError
from wsrl.signals.pictures.image import resize_values, with_mode
from wsrl.signals.pictures.picture_source import PictureOptions, PictureSource

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SPLITS = {"train": "train", "test": "t10k"}  # our name: prefix of the files
DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True, kw_only=True)
class FashionMnistOptions(PictureOptions):
    """Options of ``fashion-mnist``: the common ones and where its files are.

    Attributes:
        root: Folder of the four ``*-ubyte.gz`` files; None looks in ``$WSRL_DATA/fashion_mnist``,
            ``data/fashion_mnist`` and where Debian puts them.
    """

    root: str | os.PathLike | None = None

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return ("root",)


class FashionMnist(PictureSource):
    """Fashion-MNIST, ids ``fashion-mnist/train/00000`` and on, then ``fashion-mnist/test/00000`` and on."""

    class_names = CLASSES

    def __init__(self, options: FashionMnistOptions):
        """Read the IDX files; the raw bytes of all pictures stay in memory (55 MB)."""
        root = find_root(options.root)
        stamps = tuple((root / name).stat().st_mtime_ns for name in file_names())
        self._pixels, classes, sha256 = load_files(root.resolve(), stamps)
        super().__init__(
            name="fashion-mnist",
            ids=[f"fashion-mnist/{split}/{i:05d}" for split in SPLITS for i in range(len(classes[split]))],
            labels=[CLASSES[number] for split in SPLITS for number in classes[split]],
            splits=[split for split in SPLITS for _ in classes[split]],
            grid=options.size or self._pixels["train"].shape[1:],
            channels=3 if options.mode == "RGB" else 1,
            options=options,
            details={"sha256": sha256},
        )

    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` of one picture."""
        num_train = len(self._pixels["train"])
        split, row = ("train", position) if position < num_train else ("test", position - num_train)
        values = self._pixels[split][row].astype(np.float32)[..., None] / 255  # (28, 28, 1)
        return with_mode(resize_values(values, self.form.grid), self.options.mode)


def file_names() -> list[str]:
    """The four files."""
    return [f"{prefix}-{kind}-ubyte.gz" for prefix in SPLITS.values() for kind in ("images-idx3", "labels-idx1")]


@lru_cache(maxsize=2)
def load_files(root: Path, stamps: tuple[int, ...]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """Pictures ``(N, 28, 28)`` and class numbers ``(N,)`` of each split, and the SHA-256 of all pictures.

    The files read last are kept, since unpacking takes most of a second; the arrays cannot be written to.

    Args:
        root: Folder of the files.
        stamps: When each was last changed, so that changed files are read again.
    """
    pixels = {split: read_idx(root / f"{prefix}-images-idx3-ubyte.gz", 3) for split, prefix in SPLITS.items()}
    classes = {split: read_idx(root / f"{prefix}-labels-idx1-ubyte.gz", 1) for split, prefix in SPLITS.items()}
    check_match(root, pixels, classes)
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(pixels[split])
    return pixels, classes, digest.hexdigest()


def find_root(root: str | os.PathLike | None) -> Path:
    """The folder given by the user, or the one of the usual places that holds the files.

    Raises:
        UserError: None of the places has all four files.
    """
    prepared = Path(os.environ.get("WSRL_DATA", "data")) / "fashion_mnist"
    folders = [Path(root)] if root is not None else [prepared, Path("data/fashion_mnist"), DEBIAN_ROOT]
    names = file_names()
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return folder
    raise UserError(
        f"the files of fashion-mnist are not in {' nor in '.join(str(folder) for folder in dict.fromkeys(folders))}",
        allowed=f"a folder with {', '.join(names)}",
        do="apt-get install dataset-fashion-mnist, or download them from "
        f"https://github.com/zalandoresearch/fashion-mnist into {folders[0]}",
    )


def read_idx(path: Path, num_axes: int) -> np.ndarray:
    """Read a gzip'd IDX file of unsigned bytes that has so many axes.

    Raises:
        UserError: It is damaged or no such file.
    """
    do = "fetch the file again, or apt-get install --reinstall dataset-fashion-mnist"
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error})", allowed="a complete gzip'd IDX file", do=do) from error
    header = 4 + 4 * num_axes
    shape = struct.unpack(f">{num_axes}I", data[4:header]) if len(data) >= header else ()
    if data[:4] != bytes([0, 0, 8, num_axes]) or len(data) != header + int(np.prod(shape)):
        raise UserError(f"{path} is no IDX file of unsigned bytes with {num_axes} axes", do=do)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def check_match(root: Path, pixels: dict[str, np.ndarray], classes: dict[str, np.ndarray]) -> None:
    """Refuse class numbers ``(N,)`` of a split that do not belong to its pictures ``(N, H, W)``."""
    for split in SPLITS:
        if len(pixels[split]) != len(classes[split]) or (classes[split] >= len(CLASSES)).any():
            raise UserError(
                f"the {split} labels in {root} do not fit the pictures beside them",
                allowed=f"one label from 0 to {len(CLASSES) - 1} for each picture",
            )
