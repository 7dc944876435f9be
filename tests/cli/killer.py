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


def in_a_shard(process, out):
    """Whether a process holds the lock of a shard of the store ``out``."""
    targets = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
    return any(target.startswith(f"{out.resolve()}/segments/") for target in targets)


def kill_in_its_shard(process, out):
    """Kill a process if it is at work on a shard: it stands still from before the look until after the kill."""
    try:
        os.kill(process, signal.SIGSTOP)
        while (state := Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]) not in "TZX":
            time.sleep(0.001)
        is_at_work = state == "T" and in_a_shard(process, out)
        os.kill(process, signal.SIGKILL if is_at_work else signal.SIGCONT)
    except OSError:  # it has ended meanwhile
        return False
    return is_at_work


@contextmanager
def killing_a_worker(out, parents, word, times=1):
    """While the context runs, kill a worker in its shard with SIGKILL once rows are on the disk; gives their ids.

    A worker that has not begun, or has just ended its shard, is left alone: nothing is lost with it, and nothing told.
    Where several are to be killed, it does not matter when.

    Args:
        out: The store.
        parents: Process ids of the parents of the workers.
        word: Occurs in the command line of a worker.
        times: How many workers to kill, one after the other.
    """
    killed, stop = [], threading.Event()

    def watch():
        while not stop.is_set() and len(killed) < times:
            living = sorted(set(processes(parents, word)) - set(killed))
            if times > 1 and living:
                killed.append(living[0])
                os.kill(killed[-1], signal.SIGKILL)
            elif any(out.glob("segments/*/segment-*.h5")):
                first = next((process for process in living if kill_in_its_shard(process, out)), None)
                killed.extend([] if first is None else [first])
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
