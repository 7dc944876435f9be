"""Writing so that a process killed at any instant leaves either the old file or the new one; locks; hashes of files.

What is written gets a hidden temporary name beside its own, is synced, and is renamed; nothing else here renames.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wsrl.errors import UserError, cannot_write, disk_error

TEMPORARY = ".tmp"


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
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and disk_error(error) is None:
            raise  # HDF5 and safetensors hide the system's number in the text of errors of their own
        raise cannot_write(path, error) from error


@contextmanager
def whole(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` for a file or folder, which takes the name ``path`` when the block ends well.

    Args:
        path: Where it is to be; its parent exists. A folder that is there already is replaced as a whole.
        alone: Whether no other process writes there: what a killed one left is then removed.

    Raises:
        UserError: The disk refuses; what was there stays.
    """
    prefix = f".{path.name}."
    temporary = path.with_name(f"{prefix}{os.getpid()}{TEMPORARY}")
    with disk_errors(path):
        for left in path.parent.glob(f"{prefix}*{TEMPORARY}") if alone else ():
            _remove(left)
        try:
            yield temporary
            for written in [*temporary.rglob("*"), temporary]:
                sync(written)
            publish(temporary, path)
        finally:
            _remove(temporary)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that gets its name when it is complete and on the disk."""
    with whole(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path``, in a folder that exists, by ``data`` atomically; the old file stays where writing fails.

    Raises:
        UserError: The disk refuses.
    """
    with whole_file(path) as file:
        file.write(data)


def publish(temporary: Path, final: Path) -> None:
    """Give a completely written and synced file or folder its final name; of a file, atomically."""
    old = None
    if temporary.is_dir() and final.is_dir():
        old = final.with_name(f".{final.name}.old{TEMPORARY}")
        _remove(old)
        os.replace(final, old)
    os.replace(temporary, final)
    sync(final.parent)
    if old is not None:
        _remove(old)


def sync(path: Path) -> None:
    """Force a file, or the renames and deletions in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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


def file_sha256(*paths: Path) -> str:
    """One hash of the content of files, in order, read in pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def text_sha256(*lines: str) -> str:
    """Hash of lines of text, such as the names in a listing."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def text_number(text: str) -> int:
    """An integer of 64 bits that a text, such as the id of a signal, has on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
