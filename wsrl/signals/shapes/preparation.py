"""Shapes prepared in processes of their own, so that neither a crash nor a lack of memory takes the others along."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Protocol

from wsrl.errors import UserError

DIED = "the process that prepared it died twice, killed or out of memory"


class Preparable(Protocol):
    """A source that can be sent to another process and prepares its shapes there."""

    def record(self, index: int) -> object:
        """Prepare one shape and keep it."""


def prepare_in_processes(
    source: Preparable, indices: Sequence[int], processes: int, advance: Callable[[int], None]
) -> Iterator[tuple[int, str]]:
    """Prepare shapes; what the shapes in work need is all the memory this takes.

    When a process dies, the shapes that were in work are tried again, each alone in a process.

    Args:
        source: Whose shapes.
        indices: Places in the stable order.
        processes: Processes that work at one time.
        advance: Called with the number of shapes that are ready since the last call.

    Yields:
        Place and reason of each shape that cannot be prepared because its process dies.

    Raises:
        UserError: A shape cannot be kept, as the disk refuses.
    """
    waiting = iter(indices)
    while True:
        left = run(source, waiting, processes, advance)
        if not left:
            break
        for index in left:
            if run(source, iter([index]), 1, advance):
                advance(1)
                yield index, DIED


def run(source: Preparable, waiting: Iterator[int], processes: int, advance: Callable[[int], None]) -> list[int]:
    """Prepare shapes until there are none, or until a process dies.

    Returns:
        The shapes that were in work when a process died.
    """
    in_work: dict[Future, int] = {}
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=begin, initargs=(source,)) as pool:
        try:
            while True:
                while len(in_work) < processes and (index := next(waiting, None)) is not None:
                    in_work[pool.submit(work, index)] = index
                if not in_work:
                    return []
                done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    del in_work[future]
                    advance(1)
        except BrokenProcessPool:
            return list(in_work.values())
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


_source: list[Preparable] = []


def begin(source: Preparable) -> None:
    """Set up a process: one thread, and the source."""
    os.environ["IGL_NUM_THREADS"] = "1"  # libigl looks at it when it first uses threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which lets the shapes in work finish
    threading.Thread(target=end_with_parent, daemon=True).start()
    _source[:] = [source]


def end_with_parent() -> None:
    """End this process when its parent is gone, killed for instance; nobody would give it work or stop it."""
    parent_process().join()
    os._exit(1)


def work(index: int) -> None:
    """Prepare one shape in this process."""
    _source[0].record(index)
