"""Kill a worker of a build while it builds."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path


def processes(parents, word):
    """Processes whose parent is one of ``parents`` and whose command line contains ``word``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if parent in parents and word in command:
            found.append(int(folder.name))
    return found


@contextmanager
def killing_a_worker(out, parents, word, times=1):
    """While the context runs, kill a worker with SIGKILL as soon as rows are on the disk; gives their ids.

    Args:
        out: The store.
        parents: Process ids of the parents of the workers.
        word: Occurs in the command line of a worker.
        times: How many workers to kill, one after the other.
    """
    killed, stop = [], threading.Event()

    def watch():
        while not stop.is_set() and len(killed) < times:
            living = set(processes(parents, word)) - set(killed)
            if living and (any(out.glob("segments/*/segment-*.h5")) or times > 1):
                killed.append(min(living))
                os.kill(killed[-1], signal.SIGKILL)
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def shard_bytes(out):
    """The content of every shard file by name."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("shard-*.h5"))}
