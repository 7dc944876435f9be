"""What files stand below a folder, and what their places say.

Sub-folders of the first level are classes; where a first-level folder is called ``train``, ``val`` or ``test``, or as
``split_names`` has it, it is a split, and the classes are the folders below it. Splits may also stand inside each
class, as in ModelNet. Order and ids are the relative paths with ``/``, sorted by code point.
Hidden files and folders are skipped. Links to folders are not followed, so no loop can catch the listing; links to
files are, and may point anywhere.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsrl.errors import UserError, printable
from wsrl.signals.passed_over import LINKED, ending
from wsrl.signals.split_names import known_split

LAYOUTS = "what is read is split/class/ or class/split/ with splits train, val, test and no others beside them"
LIKE_A_SPLIT = re.compile(r"(train|val|test|valid)(ing|ation)?[^a-z].*", re.IGNORECASE)
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
    wanted: list[str] = []
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
                wanted.append(path)
            else:
                skipped[kind] += 1
                if others is not None and kind != "hidden":
                    others[LINKED if kind == "linked_folders" else ending(entry.name)] += 1
    return sorted(wanted, key=os.fsencode), skipped


def scan(folder: Path) -> list[os.DirEntry]:
    """The entries of a folder, in no order.

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
    """``folder``, ``wanted`` for files with one of the extensions, or why the entry is skipped."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if entry.is_symlink() and Path(entry.path).is_dir():
        return "linked_folders"
    return "wanted" if entry.name.lower().endswith(extensions) else "other_files"


def describe_skipped(skipped: Counter) -> str:
    """What was skipped, for a message."""
    counts = [f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(skipped.items())]
    return f"skipped: {', '.join(counts)}" if counts else "it is empty"


@dataclass(frozen=True, kw_only=True)
class FolderNames:
    """What the places of files in folders say.

    Attributes:
        splits: Split of each file, or None.
        labels: Class name of each file, or None.
        notes: What looks like a split and was not used as one, in words.
    """

    splits: list[str | None]
    labels: list[str | None]
    notes: tuple[str, ...]


def splits_and_labels(paths: Sequence[str]) -> FolderNames:
    """Splits and labels of files: ``split/class/...``, ``class/split/...``, or either below one folder for all.

    Folders inside a class are splits only where all of them are called so, since a class may well be called ``train``.

    Args:
        paths: Relative paths with ``/``.
    """
    folders = [tuple(map(printable, path.split("/")[:-1])) for path in paths]
    pairs = two_folders(folders)
    above = {names[:1] for names in folders}
    if len(above) == 1 and above != {()} and not known_split(folders[0][0]):
        # one folder holds everything: a class, or a folder too many
        below = two_folders([names[1:] for names in folders])
        if all(split for split, _ in below):
            pairs = [(split, folders[0][0] if label is None else label) for split, label in below]
    unused = sorted(
        {
            name
            for names, (split, _) in zip(folders, pairs)
            for name in names
            if LIKE_A_SPLIT.match(name) or known_split(name) not in (None, split)
        }
    )
    note = f"folders called {', '.join(unused)} were not used as splits: {LAYOUTS}"
    return FolderNames(
        splits=[split for split, _ in pairs], labels=[label for _, label in pairs], notes=(note,) if unused else ()
    )


def two_folders(folders: Sequence[tuple[str, ...]]) -> list[tuple[str | None, str | None]]:
    """Split and label of each file by the first two of the folders that it stands in, the outermost first."""
    inside: dict[str, set[str | None]] = {}
    for names in folders:
        if len(names) > 1:
            inside.setdefault(names[0], set()).add(known_split(names[1]))
    pairs = []
    for names in folders:
        first, second = (*names, None, None)[:2]
        if first is not None and known_split(first):
            pairs.append((known_split(first), second))
        elif second is not None and None not in inside[first]:
            pairs.append((known_split(second), first))
        else:
            pairs.append((None, first))
    return pairs
