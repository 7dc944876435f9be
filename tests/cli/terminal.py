"""Commands as a person types them: on a pseudo-terminal of 80 columns and 24 lines, or through pipes."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS, LINES = 80, 24
WSRL = (sys.executable, "-m", "wsrl")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and all that it printed in order."""

    status: int
    text: str


def on_terminal(argv: Sequence[object], folder: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run a program on a pseudo-terminal of its own and read what it prints until it ends.

    Args:
        argv: Program and arguments.
        folder: Working folder.
        env: Environment variables besides those of this process.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [str(word) for word in argv],
        cwd=folder,
        env=_environment(env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux: EIO when the last process that holds the terminal has ended
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return Ended(process.wait(), b"".join(parts).decode(errors="replace"))


def through_pipes(argv: Sequence[object], folder: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run a program with no terminal at all."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(errors="replace"))


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])  # the package of this checkout, wherever the command runs
    return {**os.environ, "PYTHONPATH": root, "TERM": "xterm-256color", **(env or {})}
