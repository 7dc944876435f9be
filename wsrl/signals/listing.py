"""What files stand below a folder, and what their places say.

Sub-folders of the first level are classes; where a first-level folder is called ``train``, ``val`` or ``test`` it is a
split, and the classes are the folders below it. Order and ids are the relative paths with ``/``, sorted by code point.
Hidden files and folders are skipped. Links to folders are not followed, so no loop can catch the listing; links to
files are, and may point anywhere.
"""

import os
from collections import Counter
from pathlib import Path

from wsrl.errors import UserError
from wsrl.signals.image import printable
from wsrl.signals.passed_over import LINKED, ending

SPLITS = ("train", "val", "test")
MESH_TYPES = ("obj", "ply", "stl", "off", "glb", "gltf")
MESH_EXTENSIONS = tuple(f".{file_type}" for file_type in MESH_TYPES)


def list_files(root: Path, extensions: tuple[str, ...], others: Counter | None = None) -> tuple[list[str], Counter]:
    """Relative paths of the wanted files below a folder, sorted, and how much was skipped and why.

    Args:
        root: The folder.
        extensions: Endings of the wanted files, in lower case, with the dot.
        others: Counts what is not hidden and was passed over, files by their endings.

    Raises:
        UserError: A folder cannot be listed.
    """
    found: list[str] = []
    skipped: Counter = Counter()
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in scan(root / folder):
            path = f"{folder}{entry.name}"
            kind = kind_of(entry, extensions)
            if kind == "folder":
                pending.append(path + "/")
            elif kind == "wanted":
                found.append(path)
            else:
                skipped[kind] += 1
                if others is not None and kind != "hidden":
                    others[LINKED if kind == "linked_folders" else ending(entry.name)] += 1
    return sorted(found, key=os.fsencode), skipped


def scan(folder: Path) -> list[os.DirEntry]:
    """The entries of a folder, in no order.

    Args:
        folder: The folder.

    Raises:
        UserError: It cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be listed ({error.strerror})", do="make it readable or move it away"
        ) from error


def kind_of(entry: os.DirEntry, extensions: tuple[str, ...]) -> str:
    """``folder``, ``wanted``, or why the entry is skipped.

    Args:
        entry: What a scan of a folder found.
        extensions: Endings of the wanted files.
    """
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if entry.is_symlink() and Path(entry.path).is_dir():
        return "linked_folders"
    return "wanted" if entry.name.lower().endswith(extensions) else "other_files"


def describe_skipped(skipped: Counter) -> str:
    """What was skipped, for a message.

    Args:
        skipped: Number of entries by reason.
    """
    counts = [f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(skipped.items())]
    return f"skipped: {', '.join(counts)}" if counts else "it is empty"


def place(path: str) -> tuple[str | None, str | None]:
    """Split and label that a relative path says.

    Args:
        path: Relative path with ``/``.
    """
    folders = [printable(part) for part in path.split("/")[:-1]]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    return split, folders[0] if folders else None
