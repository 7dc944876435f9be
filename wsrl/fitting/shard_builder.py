"""Fit one shard of a store in whatever process it is given to: this one, a worker of this machine, or a Ray task.

What is fitted and how stands in the store itself; a task names the store and the signals, so it is a few plain values
that travel to another process or machine, where everything is opened again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.fitting.gradient import choose_method
from wsrl.provenance import environment
from wsrl.signals import open_source, source_names
from wsrl.store.directory import record_environment
from wsrl.store.reader import WeightStore
from wsrl.store.writer import ShardBusy, ShardWriter

# A process that was killed holds its locks for an instant after its death is known.
BUSY_TRIES = 4
BUSY_PAUSE_S = 0.1
SMALLEST_SEGMENT = 64


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a process needs to fit shards of a store; plain values only.

    Attributes:
        store: The store's folder, made already.
        data: Name of the source, or its absolute path.
        options: Options of the source.
        fit: How a field is fitted; the batch size included.
        device: ``cpu`` or ``cuda[:i]``.
        threads: Torch threads of the process.
    """

    store: str
    data: str
    options: Mapping[str, object] = field(default_factory=dict)
    fit: FitConfig = FitConfig()
    device: str = "cpu"
    threads: int = 1

    def on(self, device: str) -> "ShardTask":
        """The same task on another device."""
        return replace(self, device=device)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a build of a shard tells to whoever shows it.

    Attributes:
        shard: Number of the shard; None where it concerns all.
        already_done: Fields that earlier processes left; None but in the first event of an attempt.
        fitted: Signals that have an outcome since the last event.
        scores: PSNR of the fields among them, in dB.
        message: Something to print, or an empty string.
    """

    shard: int | None = None
    already_done: int | None = None
    fitted: int = 0
    scores: tuple[float, ...] = ()
    message: str = ""


OnEvent = Callable[[Event], None]


def located(data: str) -> str:
    """The name of a source, or the absolute path of a folder or file, which means the same in any process."""
    return data if data in source_names() else str(Path(data).resolve())


class ShardBuilder:
    """Fits shards of one store in this process, one after the other.

    Args:
        task: The store, its signals and how to compute.
        source: The signals where they are open already; None opens them from the task.
    """

    def __init__(self, task: ShardTask, source=None):
        torch.set_num_threads(task.threads)
        self.task = task
        self.source = open_source(task.data, **task.options) if source is None else source
        with WeightStore.open(task.store, partial=True) as store:
            self.representation, self.prior_widths = store.representation, store.prior_widths

    def build(self, shard: int, on_event: OnEvent) -> None:
        """Fit every signal of a shard that has no field yet, and finish the shard.

        Args:
            shard: Its number.
            on_event: Called with what happened.

        Raises:
            UserError: Another process writes the shard, or the disk refuses.
        """
        config = self.task.fit
        with ExitStack() as held:
            writer = self._open(shard, held)
            for name, reason in writer.discarded:
                on_event(Event(shard=shard, message=f"damaged and fitted again: {name}: {reason}"))
            if writer.failed:
                on_event(Event(shard=shard, message=f"{len(writer.failed)} signals without a field are tried again"))
            todo = [index for index in writer.indices if index not in writer.done]
            on_event(Event(shard=shard, already_done=len(writer.indices) - len(todo)))
            if todo:
                recorded = False
                self.source.prepare(todo, self.task.threads, lambda number: None)
                signals = read_signals(self.source, todo)
                how = {"device": self.task.device, "prior_widths": self.prior_widths}
                results = fit(self.representation, signals, config, **how)
                for segment in segments(results, max(config.batch_size or 0, SMALLEST_SEGMENT)):
                    scores = tuple(result.metrics["psnr"] for result in segment if result.weights is not None)
                    if scores and not recorded:  # what fitted no row is not kept
                        record_environment(self.task.store, self._environment())
                        recorded = True
                    writer.write_segment(segment)
                    on_event(Event(shard=shard, fitted=len(segment), scores=scores))
            writer.finish()

    def _open(self, shard: int, held: ExitStack) -> ShardWriter:
        """The shard's writer; waits a little where a process that was killed still seems to hold its lock."""
        for _ in range(BUSY_TRIES):
            with suppress(ShardBusy):
                return held.enter_context(ShardWriter(self.task.store, shard, retry=True))
            time.sleep(BUSY_PAUSE_S)
        return held.enter_context(ShardWriter(self.task.store, shard, retry=True))

    def _environment(self) -> dict:
        task = self.task
        gradient = choose_method(task.fit.gradient, task.device, task.fit.precision)
        device = task.device.partition(":")[0]
        return environment() | {"device": device, "gradient": gradient, "batch_size": task.fit.batch_size}


def segments(results: Iterator, size: int) -> Iterator[list]:
    """Lists of ``size`` results, the last one shorter: what is written to the disk at once."""
    held = []
    for result in results:
        held.append(result)
        if len(held) >= size:
            yield held
            held = []
    if held:
        yield held
