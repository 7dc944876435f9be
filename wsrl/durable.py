"""Writing so that a process killed at any instant leaves either the old file or the new one: locks, syncs, renames."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsrl.errors import UserError

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EROFS: ("the file system is read-only", "choose an output folder on a writable disk"),
    errno.EACCES: ("no permission to write there", "choose an output folder of yours or change its permissions"),
    errno.EPERM: ("no permission to write there", "choose an output folder of yours or change its permissions"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another output folder"),
    errno.EIO: ("the disk reports an error", "check the disk or choose an output folder on another one"),
}


def _error_number(error: Exception) -> int | None:
    """The system's error number; HDF5 hides it in its message."""
    if isinstance(error, OSError) and error.errno in _CAUSES:
        return error.errno
    found = re.search(r"errno = (\d+)", str(error))
    return int(found.group(1)) if found else None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn failures to write ``path`` into a message that says why and how to continue.

    Args:
        path: What is being written.

    Raises:
        UserError: The disk is full, read-only, not ours, or broken.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _error_number(error)
        if isinstance(error, RuntimeError) and number is None:
            raise  # only HDF5's own RuntimeErrors, from a failed flush or close, carry a system error
        cause, do = _CAUSES.get(number, (str(error), "check the disk and the folder"))
        raise UserError(
            f"Cannot write {path}: {cause}",
            allowed="a writable folder with enough space",
            do=f"{do}, then run the same command again; finished work is kept",
        ) from error


def sync_directory(directory: Path) -> None:
    """Make renames and deletions in ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> None:
    """Give a completely written and synced file or folder its final name, atomically."""
    os.replace(temporary, final)
    sync_directory(final.parent)


def sync_file(path: Path) -> None:
    """Force the content of ``path`` to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically; the old file stays where writing fails.

    Args:
        path: The file; its folder exists.
        data: The whole content.

    Raises:
        UserError: The disk refuses.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, busy: UserError | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; the system releases it when the process dies.

    Args:
        path: The lock file, made if missing.
        busy: Raised at once where another process holds the lock; None waits for it.
    """
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(handle)
