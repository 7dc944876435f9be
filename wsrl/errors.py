"""What the user gave was wrong: one exception whose message says what, what is allowed, what to do.

Also what the system's refusals mean (errno), however deep in a library's message they hide, and how a path or the
reason of an exception stands in a message.
"""

import errno
import os
import re


class UserError(ValueError):
    """An input, option or file that cannot be used; the command line prints it without a traceback.

    Args:
        wrong: What was wrong, naming the file, key or value.
        allowed: What would be accepted.
        do: What the user can do now.
    """

    def __init__(self, wrong: str, *, allowed: str = "", do: str = ""):
        self.wrong, self.allowed, self.do = wrong, allowed, do
        parts = [wrong.rstrip(".")]
        parts += [f"Allowed: {allowed.rstrip('.')}"] if allowed else []
        parts += [f"What to do: {do.rstrip('.')}"] if do else []
        super().__init__(". ".join(parts) + ".")


class SignalError(UserError):
    """One signal that cannot be read or used; a build records it with this reason and goes on."""


_PERMISSION = (
    "no permission to write there",
    "files you may read and folders you may write",
    "mend the permissions or choose another path",
)
# For each refusal of the system: what it means to a writer, what is allowed, what to do.
_SYSTEM = {
    errno.ENOSPC: ("the disk is full", "a disk with free space", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "writing within your disk quota", "free some space"),
    errno.EROFS: ("the file system is read-only", "a disk that can be written", "choose an output folder on another"),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: ("the disk reports an error", "a disk that works", "check the disk or choose another one"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "a folder", "choose a path that is a folder"),
    errno.ENOENT: ("there is no such path", "a path that exists", "check the spelling of the path"),
    errno.EISDIR: ("the path is a folder", "a file", "choose a path that is a file"),
    errno.EEXIST: ("the path exists", "a path that does not exist yet", "choose another path"),
}
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_AGAIN = "then run the same command again; finished work is kept"


def system_message(error: OSError) -> UserError:
    """What was wrong, what is allowed and what to do, for a file or a disk that refused."""
    where = f": {error.filename}" if error.filename is not None else ""
    _, allowed, do = _SYSTEM.get(error.errno, ("", "", "check the file or disk"))
    do = do if error.errno in _SYSTEM.keys() - _REFUSALS else f"{do}, {_AGAIN}"
    return UserError(f"{error.strerror or error}{where}", allowed=allowed, do=do)


def cannot_write(path: object, error: Exception) -> UserError:
    """Why ``path`` cannot be written, and how to continue, for the system's refusal of it."""
    refusal = disk_error(error) or error
    unknown = (str(error), "", "check the disk and the folder")
    cause, _, do = _SYSTEM.get(getattr(refusal, "errno", None), unknown)
    allowed = "a writable folder with enough space"
    return UserError(f"Cannot write {path}: {cause}", allowed=allowed, do=f"{do}, {_AGAIN}")


def disk_error(error: BaseException | None) -> OSError | None:
    """The refusal of the disk that an exception of another library stands for, or None.

    Safetensors and HDF5 hide the number of the system in their text; torch raises after the refusal that it met.
    """
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        hidden = re.search(r"errno = (\d+)|Os \{ code: (\d+)|\(os error (\d+)\)", str(error))
        number = int(next(filter(None, hidden.groups()))) if hidden else None
        if number in _REFUSALS:
            return OSError(number, os.strerror(number))
        raised_after = error.__context__ if isinstance(error, RuntimeError) else None
        error, seen = error.__cause__ or raised_after, seen + 1
    return None


def printable(path: str | os.PathLike) -> str:
    """The path as printable UTF-8 in one line; other bytes, control characters and backslashes are spelled out.

    Args:
        path: Path as the system gives it.
    """
    spelled = []
    for character in os.fsdecode(path):
        if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
            spelled.append(f"\\x{ord(character) - 0xDC00:02x}")
        else:
            plain = character.isprintable() and character != "\\"
            spelled.append(character if plain else character.encode("unicode_escape").decode())
    return "".join(spelled)


def one_line(error: BaseException) -> str:
    """The reason of an exception in one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()) or type(error).__name__
