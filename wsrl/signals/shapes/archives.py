"""Zip archives read as if they were hostile: nothing is unpacked to the disk, nothing grows beyond a limit."""

import hashlib
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsrl.errors import SignalError, UserError, one_line, printable

BLOCK = 1 << 20
# What zipfile raises on damaged, encrypted or unknown data.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError)


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """What is refused.

    Attributes:
        max_members: Largest number of members of an archive.
        max_member_bytes: Largest size of a member when it is unpacked, as declared and as found.
        max_ratio: Largest ratio of unpacked to packed size, for members of more than a megabyte.
    """

    max_members: int = 100_000
    max_member_bytes: int = 1 << 29
    max_ratio: float = 200.0


class Archive:
    """A zip archive; each process opens it when it first reads from it.

    Attributes:
        path: The file.
        names: Names of its members, as they are.
    """

    def __init__(self, path: str | os.PathLike, limits: ArchiveLimits | None = None):
        """Read the directory of the archive.

        Raises:
            UserError: It is no zip archive, or has too many members.
        """
        self.path = Path(path)
        self.limits = limits or ArchiveLimits()
        self._zip: zipfile.ZipFile | None = None
        try:
            members = self._open().infolist()
        except ZIP_ERRORS as error:
            raise UserError(f"{path} is no zip archive that can be read ({one_line(error)})") from error
        if len(members) > self.limits.max_members:
            raise UserError(f"{path} has {len(members):,} members", allowed=f"at most {self.limits.max_members:,}")
        self.names = [member.filename for member in members]

    def read(self, name: str) -> bytes:
        """Content of a member, which a relative path with ``/`` names.

        Raises:
            SignalError: There is no such member, its name leads out of the archive, it is a link, encrypted or damaged,
                or it is beyond the limits.
        """
        label = f"{self.path.name}: {printable(name)}"
        if reason := outside(name):
            raise SignalError(f"{label}: the name {reason}")
        try:
            member = self._open().getinfo(name)
        except KeyError:
            raise SignalError(f"{label}: there is no such member") from None
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SignalError(f"{label}: it is a link", allowed="members that are files")
        packed = max(member.compress_size, 1)
        if member.file_size > BLOCK and member.file_size / packed > self.limits.max_ratio:
            raise SignalError(
                f"{label}: it unpacks to {member.file_size / packed:,.0f} times its size, like a zip bomb"
            )
        limit = self.limits.max_member_bytes
        if member.file_size > limit:
            raise SignalError(f"{label}: {member.file_size:,} bytes", allowed=f"at most {limit:,} bytes")
        return self._unpack(member, label)

    def _unpack(self, member: zipfile.ZipInfo, label: str) -> bytes:
        """Unpack in blocks, so that a member that lies about its size is caught before it fills the memory."""
        parts, size = [], 0
        try:
            with self._open().open(member) as file:
                while part := file.read(BLOCK):
                    size += len(part)
                    if size > member.file_size:
                        raise SignalError(f"{label}: it is larger than the {member.file_size:,} bytes it declares")
                    parts.append(part)
        except SignalError:
            raise
        except ZIP_ERRORS as error:
            raise SignalError(f"{label}: cannot be unpacked ({one_line(error)})") from error
        return b"".join(parts)

    def listing_sha256(self) -> str:
        """Hash of the names, sizes and checksums of all members, without unpacking them."""
        members = self._open().infolist()
        text = "\n".join(f"{member.filename}\t{member.file_size}\t{member.CRC:08x}" for member in members)
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.path)
        return self._zip

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_zip": None}  # an open file cannot be sent to another process


def outside(name: str) -> str:
    """Why a path may lead out of the folder it is relative to, or nothing."""
    if "://" in name or name.startswith(("data:", "file:")):
        return "is an address, not a file"
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero byte"
    if name.startswith("/") or name[1:2] == ":":
        return "is absolute"
    return "leads upwards" if ".." in PurePosixPath(name).parts else ""


def read_inside(root: Path, folder: Path, name: str, max_bytes: int) -> bytes:
    """Content of a file that another file refers to, if it stands inside the root.

    Args:
        root: Folder that nothing may lead out of, by links either.
        folder: Folder of the file that refers to it.
        name: The reference, relative to that folder.
        max_bytes: Largest size.

    Raises:
        SignalError: It leads out, is missing, or is too large.
    """
    label = printable(name)
    if "://" in name or "\\" in name or "\0" in name or name.startswith("/") or name[1:2] == ":":
        raise SignalError(f"it refers to {label}, which {outside(name)}", allowed="files of its folder")
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(os.path.realpath(root)):
        raise SignalError(f"it refers to {label}, which is outside of the folder {root}", allowed="files of the folder")
    return read_bounded(path, f"it refers to {label}, which", max_bytes)


def read_bounded(file: Path, label: str, max_bytes: int) -> bytes:
    """Content of a regular file that is not too large.

    Args:
        file: The file.
        label: Its name in a message, before what is wrong with it.
        max_bytes: Largest size.

    Raises:
        SignalError: It is missing, no regular file, too large, or cannot be read.
    """
    try:
        if not file.is_file():
            raise SignalError(f"{label} is missing, a link to nothing, or no regular file")
        size = file.stat().st_size
        if size > max_bytes:
            raise SignalError(f"{label} has {size:,} bytes", allowed=f"at most {max_bytes:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise SignalError(f"{label} cannot be read ({error.strerror})") from error
