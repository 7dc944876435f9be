"""How long work says how far it is: the library calls, whoever started it draws.

A function that takes long has an argument ``progress: ShowProgress = silent`` and writes
``with progress("fields", len(rows)) as shown: ... shown.advance(1)``.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class Progress:
    """The progress of one loop; this one shows nothing."""

    def expect(self, number: int) -> None:
        """Count ``number`` further items to do; fewer where it is negative."""

    def advance(self, number: int, note: str = "") -> None:
        """Count ``number`` finished items; ``note`` says something of the latest ones."""

    def say(self, text: str) -> None:
        """Tell a person one line that is worth reading."""


UNSEEN = Progress()
"""The progress of a loop that is not shown."""
ShowProgress = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Shows a loop: what its items are, and how many there are, None where that is not known.

A loop of no name draws nothing: it is there for its lines.
"""


@contextmanager
def silent(what: str, total: int | None) -> Iterator[Progress]:
    """Show nothing."""
    yield Progress()


def say(progress: ShowProgress, text: str) -> None:
    """Tell a person one line outside any loop."""
    with progress("", None) as shown:
        shown.say(text)
