"""Patches of the photographs that Debian's desktop backgrounds bring, as a folder of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from wsrl.durable import whole
from wsrl.errors import UserError

FOLDER = Path("/usr/share/backgrounds/mate/nature")
PACKAGE = "mate-backgrounds"
HELD_OUT = ("Blinds", "GreenMeadow", "Storm")
"""Photographs of the test part: no patch of theirs is trained on."""
LARGEST_ZOOM = 4.0


def cut_patches(out: Path, size: int, num: dict[str, int], seed: int = 0) -> Path:
    """Cut square patches, equally many of each photograph: ``<out>/<split>/<photograph>/<number>.png``.

    A patch covers one to four times ``size`` pixels of the photograph, as far as it has so many, and is shrunk to
    ``size`` by averaging, so that details of every scale occur.

    Args:
        out: The folder, whole or not there; one that is there is kept.
        size: Pixels of a side.
        num: Patches of the splits ``train`` and ``test``.
        seed: Seed of places and zooms.

    Returns:
        The folder.

    Raises:
        UserError: The photographs are not installed, or the disk refuses.
    """
    paths = sorted(FOLDER.glob("*.jpg"))
    if not paths:
        raise UserError(f"{FOLDER} has no photographs", allowed=f"those of Debian's {PACKAGE}", do=f"install {PACKAGE}")
    if out.is_dir():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out, alone=True) as temporary:
        _cut_all(paths, temporary, size, num, seed)
    return out


def _cut_all(paths: list[Path], out: Path, size: int, num: dict[str, int], seed: int) -> None:
    for split, total in num.items():
        photographs = [path for path in paths if (path.stem in HELD_OUT) == (split == "test")]
        for number, path in enumerate(photographs):
            generator = np.random.default_rng([seed, size, number, split == "test"])
            count = total // len(photographs) + (number < total % len(photographs))
            _cut(path, out / split / path.stem, size, count, generator)


def _cut(path: Path, folder: Path, size: int, count: int, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    largest = min(LARGEST_ZOOM * size, *picture.size)
    for number in range(count):
        side = round(size * (largest / size) ** generator.random())
        left, top = (int(generator.integers(0, length - side + 1)) for length in picture.size)
        patch = picture.crop((left, top, left + side, top + side))
        patch.resize((size, size), Image.Resampling.BOX).save(folder / f"{number:04d}.png")
