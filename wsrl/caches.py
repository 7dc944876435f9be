"""Where this package keeps what it can make again: the user's cache, or a folder for temporary files without one.

A user id may have no home (containers with an id of their own, services), or one that cannot be written to. The folder
for temporary files is shared with other users, so only a folder in it that is ours alone is believed.
"""

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

PRIVATE = 0o700
NAME = "wsrl"


def data_cache(name: str) -> Path:
    """Folder of results: below ``$WSRL_CACHE``, else ``~/.cache/wsrl``, else a temporary folder; it need not exist.

    Args:
        name: What is kept in it.
    """
    folder = os.environ.get("WSRL_CACHE")
    return Path(folder) / name if folder else _first_writable(name, "~/.cache", os.environ.get("XDG_CACHE_HOME"))


def code_cache(name: str) -> Path:
    """Folder of compiled code, made if it is missing: below ``$XDG_CACHE_HOME``, else ``~/.cache``, else temporary.

    What lies in it is run, so it is a folder that nobody else can write to.

    Args:
        name: What is kept in it.

    Raises:
        OSError: No folder can be made.
    """
    folder = _first_writable(name, os.environ.get("XDG_CACHE_HOME"), "~/.cache")
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    return folder if is_ours_alone(folder) else _fresh(name)


def is_ours_alone(path: Path) -> bool:
    """Whether a file or folder, no link, belongs to this user, or to the system, and nobody else may write to it.

    Args:
        path: A path.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False
    ours = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
    return ours and not stat.S_ISLNK(status.st_mode) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _first_writable(name: str, *parents: str | None) -> Path:
    """The folder of a name below the first of some folders where it is or can be made, else below a temporary one."""
    for parent in filter(None, parents):
        folder = Path(os.path.expanduser(parent)) / NAME / name  # without a home the ~ stays, which is no absolute path
        if not folder.is_absolute():
            continue
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return folder
    return _own_temporary() / name


def _own_temporary() -> Path:
    """A folder for temporary files that is this user's in every run; a fresh one where somebody else has its name."""
    user = os.geteuid() if hasattr(os, "geteuid") else "own"
    folder = Path(tempfile.gettempdir()) / f"{NAME}-{user}"
    try:
        folder.mkdir(mode=PRIVATE, exist_ok=True)
    except OSError:
        return _fresh("")
    return folder if folder.is_dir() and is_ours_alone(folder) else _fresh("")


@cache
def _fresh(name: str) -> Path:
    """A folder of this process."""
    return Path(tempfile.mkdtemp(prefix=f"{NAME}-{name}"))
