"""Parts of experiments that do not depend on one another, made in processes side by side."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from pipelines.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that an experiment makes and keeps, and that needs nothing but its arguments.

    Attributes:
        part: Name of the part.
        path: JSON file.
        how: What it is made with, as plain values.
        make: Makes plain values; another process finds it by its name.
        arguments: What it takes; other processes get copies, so they are names of files rather than what is in them.
    """

    part: str
    path: Path
    how: Any
    make: Callable[..., dict]
    arguments: tuple


def made(experiment: Experiment, tasks: Sequence[Task], processes: int) -> list[dict]:
    """What an earlier run left of each task, or what is made now, which does not depend on the number of processes.

    Args:
        experiment: Keeps it. The seconds of a part are those that the experiment waited for it.
        tasks: The tasks; those that take longest first.
        processes: Processes at one time, each with one thread; one is this process as it is.

    Returns:
        Plain values in the order of the tasks.
    """
    missing = [i for i, task in enumerate(tasks) if experiment.known(task.path, task.how) is None]
    elsewhere = processes > 1 and len(missing) > 1
    with one_thread_each(min(processes, len(missing))) if elsewhere else nullcontext() as pool:
        waiting = {} if pool is None else {i: pool.submit(tasks[i].make, *tasks[i].arguments) for i in missing}

        def make(i: int) -> dict:
            return waiting[i].result() if i in waiting else tasks[i].make(*tasks[i].arguments)

        return [
            experiment.kept(task.part, task.path, lambda i=i: make(i), task.how)  # type: ignore[misc]
            for i, task in enumerate(tasks)
        ]


@contextmanager
def one_thread_each(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with one thread each; after an error, what they have not begun is left."""
    context = multiprocessing.get_context("spawn")  # open files and threads of this process do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_use_one_thread) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy and scikit-learn
