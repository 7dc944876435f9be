"""How a command ends: the exit status, and one message for what the user can mend."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsrl.cli.display import never_silent
from wsrl.errors import UserError, disk_error, system_message

EXIT_WRONG = 2
EXIT_INTERRUPTED = 130


def guarded(name: str, run: Callable[[], int]) -> int:
    """Run one stage; what the user can mend becomes a message on stderr and a status.

    Returns:
        0 done, 1 done with failures that are listed, 2 wrong usage or input, 130 interrupted.
    """
    try:
        with terminated_as_interrupted(), never_silent(name):
            return run() or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit stays silent
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        say_wrong("interrupted. What is finished is kept; run the same command again to continue.")
        return EXIT_INTERRUPTED
    except Exception as error:
        message = _message(name, error)
        if message is None:
            raise  # a bug goes on its way
        say_wrong(str(message))
    return EXIT_WRONG


def _message(name: str, error: Exception) -> UserError | None:
    """What the user can do about an error; None where it is a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, argparse.ArgumentError):
        return UserError(str(error), do=f"see wsrl {name} --help")
    refusal = error if isinstance(error, OSError) else disk_error(error)
    return None if refusal is None else system_message(refusal)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: what is open is closed, and a message says how to continue."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():  # Lightning leaves its own behind
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def say_wrong(message: str) -> None:
    """Print a message under the name of the command."""
    print(f"wsrl: {message}", file=sys.stderr)


def _exit_code(stop: SystemExit) -> int:
    """The status a stage's own parser asked for; a text is printed as a message."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    say_wrong(str(stop.code))
    return EXIT_WRONG
