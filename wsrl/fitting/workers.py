"""Build shards with several processes of this machine, one per device; a worker that dies is replaced.

The parent hands out one shard at a time over a pipe and hears what happens over the same pipe. What a dead worker had
finished is on the disk, and the next one goes on from there.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from wsrl.errors import UserError
from wsrl.fitting.shard_builder import Event, OnEvent, ShardBuilder, ShardTask

MOST_DEATHS = 3


@dataclass(kw_only=True)
class _Worker:
    """A running process, the pipe to it, its device and the shard that it has; None when there is no more for it."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    device: str
    shard: int | None = None

    def give(self, shard: int | None) -> None:
        """Hand it a shard, or let it go."""
        self.shard = shard
        with suppress(OSError):  # it is dead already: whoever reads from it finds out
            self.pipe.send(shard)

    def end(self) -> str:
        """Wait for its end; how it ended, in words."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def build_with_workers(task: ShardTask, shards: Sequence[int], devices: Sequence[str], on_event: OnEvent) -> None:
    """Build shards in processes of their own.

    Args:
        task: The store, its signals and how to compute; each worker's device replaces its own.
        shards: Numbers of the shards, handed out in this order.
        devices: The device of each worker.
        on_event: Called in this process with what happened.

    Raises:
        UserError: A worker met what the user can mend, or the workers of some shards died again and again; the other
            shards are built then.
    """
    crew = _WorkerCrew(task, shards, devices, on_event)
    try:
        crew.work()
    finally:
        crew.stop()
    if crew.abandoned:
        raise died_again_and_again(crew.abandoned)


class _WorkerCrew:
    """The parent's side: which shards wait, who has which, and how often a shard's worker died."""

    def __init__(self, task: ShardTask, shards: Sequence[int], devices: Sequence[str], on_event: OnEvent):
        self.task, self.on_event = task, on_event
        self.waiting, self.free = deque(shards), deque(devices[: len(shards)])
        self.running: list[_Worker] = []
        self.deaths: Counter[int] = Counter()
        self.abandoned: dict[int, str] = {}

    def work(self) -> None:
        """Go on until no shard waits and no worker runs."""
        while self.waiting or self.running:
            while self.waiting and self.free:
                worker = _start(self.task, self.free.popleft())
                self.running.append(worker)
                worker.give(self.waiting.popleft())
            for pipe in wait([worker.pipe for worker in self.running]):
                worker = next(worker for worker in self.running if worker.pipe is pipe)
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):
                    self._ended(worker)
                else:
                    self._heard(worker, kind, content)

    def stop(self) -> None:
        """End whoever still runs: what was written is whole, and what was in hand is fitted again."""
        for worker in self.running:
            worker.process.kill()
            worker.end()

    def _heard(self, worker: _Worker, kind: str, content) -> None:
        if kind == "event":
            self.on_event(content)
        elif kind == "done":
            worker.give(self.waiting.popleft() if self.waiting else None)
        elif kind == "error":
            raise content
        else:
            raise RuntimeError(f"the worker of shard {worker.shard} failed:\n{content}")

    def _ended(self, worker: _Worker) -> None:
        self.running.remove(worker)
        self.free.append(worker.device)
        shard, end = worker.shard, worker.end()
        if shard is None:
            return
        self.deaths[shard] += 1
        again = self.deaths[shard] < MOST_DEATHS
        if again:
            self.waiting.append(shard)
        else:
            self.abandoned[shard] = end
        what = "another one goes on with it" if again else "it is given up"
        self.on_event(Event(shard=shard, message=f"the worker of shard {shard} {end}; {what}"))


def died_again_and_again(ends: dict[int, str]) -> UserError:
    """The error for shards whose workers died too often.

    Args:
        ends: For each shard how its last worker ended.
    """
    shown = ", ".join(f"shard {shard} (the last one {end})" for shard, end in sorted(ends.items()))
    return UserError(
        f"the workers of some shards died {MOST_DEATHS} times: {shown}",
        allowed="processes that live as long as their work; SIGKILL often means that the memory was used up",
        do="use fewer workers or a smaller fit.batch_size, then run the same command again: finished work is kept",
    )


def _start(task: ShardTask, device: str) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked process can use neither CUDA nor the threads of torch
    pipe, theirs = context.Pipe()
    process = context.Process(target=_work, args=(task.on(device), theirs), name=f"wsrl {device}", daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, pipe=pipe, device=device)


def _work(task: ShardTask, pipe: Connection) -> None:
    """What a worker does: build the shards it is given until it is given none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    builder = None
    try:
        while (shard := pipe.recv()) is not None:
            builder = ShardBuilder(task) if builder is None else builder
            builder.build(shard, lambda event: pipe.send(("event", event)))
            pipe.send(("done", shard))
    except (EOFError, BrokenPipeError):
        return
    except (UserError, OSError) as error:
        pipe.send(("error", error))
    except Exception:  # goes on its way in the parent
        pipe.send(("failed", traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, however it went: a new build must find its shards free."""
    multiprocessing.parent_process().join()
    os._exit(1)
