"""Any folder of pictures; order, ids, classes and splits are those of ``wsrl.signals.listing``."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsrl.durable import text_sha256
from wsrl.errors import SignalError, UserError, printable
from wsrl.signals.listing import describe_skipped, list_files, splits_and_labels
from wsrl.signals.pictures.image import GREY_MODES, MAX_PIXELS, open_picture, read_picture
from wsrl.signals.pictures.picture_source import PictureOptions, PictureSource
from wsrl.signals.source_options import is_whole

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_SIZE = (32, 32)
NUM_PROBED = 256


@dataclass(frozen=True, kw_only=True)
class FolderOptions(PictureOptions):
    """Options of a folder of pictures: the common ones and the decompression limit.

    Without ``size`` pictures become 32x32. Without ``mode`` they are grey if all of up to 256 files, evenly spread over
    the whole sorted listing, have grey headers, else RGB.

    Attributes:
        max_pixels: Largest number of pixels of a picture that is decoded.
    """

    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        super().__post_init__()
        if not (is_whole(self.max_pixels) and self.max_pixels >= 4):
            raise UserError(f"max_pixels is {self.max_pixels!r}", allowed="a whole number from 4")


class Folder(PictureSource):
    """Pictures below a folder, read one at a time.

    Attributes:
        root: The folder.
        num_skipped: Number of entries that are no pictures of ours, by reason; not part of the description, since a
            note added to the folder changes no signal.
    """

    def __init__(self, root: str | os.PathLike, options: FolderOptions):
        """List the folder; no picture is decoded yet.

        Raises:
            UserError: It has no pictures, or a folder in it cannot be listed.
        """
        self.root = Path(root).absolute()
        others: Counter = Counter()
        paths, skipped = list_files(self.root, EXTENSIONS, others)
        if not paths:
            raise UserError(
                f"the folder {root} has no pictures ({describe_skipped(skipped)})",
                allowed=f"files ending in {' '.join(EXTENSIONS)}, in class sub-folders or not",
                do="give the folder that holds the pictures",
            )
        self.num_skipped = dict(sorted(skipped.items()))
        self.passed_over = dict(sorted(others.items()))
        self._paths = paths
        self._mode = options.mode or probe_mode([self.root / path for path in paths])
        ids = [printable(path) for path in paths]
        names = splits_and_labels(paths)
        self.notes = names.notes
        super().__init__(
            name=self.root.resolve().name or "root",
            ids=ids,
            labels=names.labels,
            splits=names.splits,
            grid=options.size or DEFAULT_SIZE,
            channels=1 if self._mode == "L" else 3,
            options=options,
            details={"listing_sha256": text_sha256(*ids)},
        )

    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` of one picture."""
        path = self.root / self._paths[position]
        return read_picture(path, self.form.grid, self._mode, self.options.max_pixels)


def probe_mode(paths: list[Path]) -> str:
    """``L`` if all of up to 256 pictures, evenly spread, that can be read are grey, and one can; else ``RGB``."""
    num_grey = 0
    for index in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), NUM_PROBED)).astype(int)):
        if not paths[index].is_file():
            continue
        try:
            with open_picture(paths[index]) as picture:
                mode = picture.mode
        except SignalError:
            continue  # reported when the signal itself is read
        if not (mode in GREY_MODES or mode.startswith("I;16")):
            return "RGB"
        num_grey += 1
    return "L" if num_grey else "RGB"
