"""What a command shows while it works: one bar on a terminal, plain lines elsewhere, never a long silence.

Everything goes to stderr. A terminal without cursor movement (``TERM=dumb``) gets plain lines too.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from wsrl.progress import Progress

LINE_EVERY_S = 10.0
"""Shortest time between two plain lines of one loop."""
SILENCE_S = 12.0
"""Longest time without any line where there is no bar."""


def has_terminal() -> bool:
    """Whether a bar can be drawn on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def say(text: str) -> None:
    """Print a line beside the results."""
    print(text, file=sys.stderr, flush=True)
    _Watch.last = time.monotonic()


@contextmanager
def show_progress(what: str, total: int | None) -> Iterator[Progress]:
    """Show the progress of a loop over ``total`` items, or of one without a known end; of no name: its lines alone."""
    with ExitStack() as stack:
        lines = not has_terminal() or not what
        loop = Lines(what, total) if lines else Bar(stack.enter_context(_display()), what, total)
        if what:
            _Watch.loops.append(loop)
            stack.callback(_Watch.loops.remove, loop)
        yield loop


class Lines(Progress):
    """Plain lines, now and then."""

    def __init__(self, what: str, total: int | None):
        self.what, self.total, self.done, self.note = what, total, 0, ""
        self.started = self._last = time.monotonic()

    def expect(self, number: int) -> None:
        """Count further items."""
        self.total = None if self.total is None else self.total + number

    def advance(self, number: int, note: str = "") -> None:
        """Count finished items."""
        self.done, self.note = self.done + number, note or self.note
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S or self.done == self.total:
            self._last = now
            say(self.line())

    def say(self, text: str) -> None:
        """Print one line."""
        say(text)

    def line(self) -> str:
        """How far the loop is, with its rate and the time that is left."""
        spent = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.what}: {self.done}" + ("" if self.total is None else f"/{self.total}")]
        if self.done:
            parts.append(rate(self.done / spent))
            if self.total is not None:
                parts.append(f"{(self.total - self.done) * spent / self.done:.0f} s left")
        return "  ".join([*parts, self.note]).rstrip()


def rate(per_s: float) -> str:
    """Items a second, or seconds an item where that is slower."""
    return f"{per_s:.1f}/s" if per_s >= 1 or per_s == 0 else f"{1 / per_s:.1f} s each"


class Bar(Progress):
    """A bar of rich.

    Args:
        drawn: The display of rich.
        what: What the items are.
        total: How many there are, or None.
    """

    def __init__(self, drawn, what: str, total: int | None):
        self.drawn, self.task = drawn, drawn.add_task(what, total=total, note="")

    def expect(self, number: int) -> None:
        """Count further items."""
        if self.drawn.tasks[0].total is not None:
            self.drawn.update(self.task, total=self.drawn.tasks[0].total + number)

    def advance(self, number: int, note: str = "") -> None:
        """Count finished items."""
        self.drawn.update(self.task, advance=number, **({"note": note} if note else {}))

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self.drawn.console.print(text, markup=False, highlight=False)


def _display():
    """A display of rich, as wide as the terminal."""
    from rich import progress as parts
    from rich.console import Console
    from rich.text import Text

    class Rate(parts.ProgressColumn):
        def render(self, task) -> Text:
            return Text(rate(task.finished_speed or task.speed or 0.0))

    columns = (
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(bar_width=None),
        parts.MofNCompleteColumn(),
        Rate(),
        parts.TimeRemainingColumn(),
        parts.TextColumn("{task.fields[note]}", markup=False),
    )
    return parts.Progress(*columns, console=Console(stderr=True), expand=True)


class _Watch:
    """When a line was last printed, and the loops that run; one for the process, as there is one stderr."""

    last = 0.0
    loops: list[Progress] = []  # noqa: RUF012


@contextmanager
def never_silent(command: str) -> Iterator[None]:
    """Within the block, print a line after every ``SILENCE_S`` without one, unless a bar is on a terminal.

    Some steps have no loop to count: a classifier of scikit-learn, a map, a file that is read whole.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(command, ended), name="progress", daemon=True)
    _Watch.last = time.monotonic()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(command: str, ended: threading.Event) -> None:
    """Print a line whenever it was silent for too long, until the command has ended."""
    started = time.monotonic()
    while not ended.wait(max(0.1, SILENCE_S - (time.monotonic() - _Watch.last))):
        loop = _Watch.loops[-1] if _Watch.loops else None
        if time.monotonic() - _Watch.last < SILENCE_S:
            continue
        if isinstance(loop, Lines):
            say(loop.line())
        elif loop is None:
            say(f"wsrl {command}: working, {time.monotonic() - started:.0f} s so far")
        else:
            _Watch.last = time.monotonic()  # a bar is moving
