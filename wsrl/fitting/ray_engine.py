"""Build shards as tasks of a Ray cluster whose nodes see the same files.

Tasks carry the names of the store and of the source, never tensors: each worker opens both again. A task whose worker
or node dies is given to another one, which goes on from the segments on the disk. Ray is imported here alone.
"""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wsrl.errors import UserError
from wsrl.fitting.shard_builder import Event, OnEvent, ShardBuilder, ShardTask
from wsrl.fitting.workers import MOST_DEATHS, died_again_and_again
from wsrl.store.schema import MANIFEST

POLL_S = 0.25
REACH_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where the tasks run and what each of them asks for.

    Attributes:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` of a cluster; None is the one of this machine or of
            ``RAY_ADDRESS``, and starts one where there is none.
        cpus: Processor cores of a task.
        gpus: GPUs of a task; None is one where the cluster has any and the device does not forbid it.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float | None = None

    def __post_init__(self):
        if self.cpus < 0 or (self.gpus or 0) < 0 or self.cpus + (self.gpus or 0) == 0:
            raise UserError(
                f"a task asks Ray for {self.cpus:g} cores and {self.gpus or 0:g} GPUs",
                allowed="numbers from 0, not both 0",
                do="mend --ray-cpus or --ray-gpus",
            )


def build_on_ray(
    task: ShardTask, shards: Sequence[int], options: RayOptions, on_event: OnEvent, *, device: str = "auto"
) -> None:
    """Build shards on a Ray cluster.

    Args:
        task: The store and its signals, at paths that mean the same on every node; its device is chosen here.
        shards: Numbers of the shards.
        options: The cluster and the requests of a task.
        on_event: Called in this process with what happened.
        device: ``auto``, ``cpu`` or ``cuda``: whether a task asks for a GPU where ``options`` leave that open.

    Raises:
        UserError: There is no Ray or no such cluster, a worker met what the user can mend, or the workers of some
            shards died again and again; the other shards are built then.
    """
    with _connected(options.address) as ray:
        gpus = _gpus(ray, options, device)
        requests = {"num_cpus": options.cpus, "num_gpus": gpus}
        if not _fits_a_node(ray, options.cpus, gpus):
            on_event(
                Event(message=f"no node of the cluster has {options.cpus:g} cores and {gpus:g} GPUs: waiting for one")
            )
        listener = _start_listener(ray)
        located = replace(task, store=str(Path(task.store).resolve()), device="cuda" if gpus else "cpu")
        build = ray.remote(**requests, max_retries=0)(_build)  # deaths are counted and told here
        crew = _RayCrew(ray, lambda shard: build.remote(located, shard, listener), listener, on_event)
        try:
            abandoned = crew.work(shards)
        finally:
            for left in crew.pending:
                ray.cancel(left, force=True)  # what was written is whole, and what was in hand is fitted again
            ray.kill(listener)
    if abandoned:
        raise died_again_and_again(abandoned)


def _import_ray():
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray, which is not installed",
            allowed="an environment with the extra [ray]",
            do="pip install 'wsrl[ray]', or leave out --engine",
        ) from error
    return ray


@contextmanager
def _connected(address: str | None) -> Iterator:
    """Ray, connected to the cluster; the connection ends with the context unless it was there before."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    # connect, or start a cluster of this machine
    if address is not None and address not in ("auto", "local"):
        _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address or "of this machine", " ".join(str(error).split())) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by its own when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdigit()):
        raise UserError(f"--ray-address is {address!r}", allowed="auto, HOST:PORT or ray://HOST:PORT", do="mend it")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> UserError:
    return UserError(
        f"the Ray cluster {address} cannot be reached: {why}",
        allowed="the address of a running cluster, with the Ray and the Python of this machine",
        do="see `ray status`, start one with `ray start --head`, or leave out --ray-address",
    )


def _gpus(ray, options: RayOptions, device: str) -> float:
    """GPUs that a task asks for."""
    if device.startswith("cuda:"):
        raise UserError(f"--device is {device} with --engine ray", allowed="auto, cpu or cuda", do="let Ray choose it")
    if options.gpus is not None:
        return options.gpus
    return float(device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))


def _fits_a_node(ray, cpus: float, gpus: float) -> bool:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)


class _Listener:
    """An actor that keeps what the tasks tell until the driver asks for it."""

    def __init__(self):
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)

    def drain(self) -> list[Event]:
        events, self.events = self.events, []
        return events


def _start_listener(ray):
    """The listener, on the node of the driver where it has a place there, so that no other node takes it along."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Listener).remote()


class _RayCrew:
    """The driver's side: which shards are being built, and how often the worker of each died.

    Ray would start a lost task again by itself, but without a word: what a worker told may die with it on the way.
    """

    def __init__(self, ray, start: Callable[[int], object], listener, on_event: OnEvent):
        self.ray, self.start, self.listener, self.on_event = ray, start, listener, on_event
        self.pending: dict = {}
        self.deaths: Counter[int] = Counter()
        errors = ray.exceptions
        self.lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)

    def work(self, shards: Sequence[int]) -> dict[int, str]:
        """Go on until no task is pending; the shards that were given up, with the reason."""
        abandoned: dict[int, str] = {}
        self.pending.update({self.start(shard): shard for shard in shards})
        while self.pending:
            ended, _ = self.ray.wait(list(self.pending), timeout=POLL_S)
            with suppress(self.ray.exceptions.RayActorError):  # a listener that died is started again
                for event in self.ray.get(self.listener.drain.remote()):
                    self.on_event(event)
            for task in ended:
                shard = self.pending.pop(task)
                try:
                    outcome = self.ray.get(task)
                except self.lost as error:
                    self._died(shard, type(error).__name__, abandoned)
                else:
                    if outcome is not None:
                        raise outcome
        return abandoned

    def _died(self, shard: int, how: str, abandoned: dict[int, str]) -> None:
        self.deaths[shard] += 1
        if self.deaths[shard] < MOST_DEATHS:
            self.on_event(Event(shard=shard, message=f"the worker of shard {shard} died; another one goes on with it"))
            self.pending[self.start(shard)] = shard
            return
        abandoned[shard] = f"ended with {how}"
        self.on_event(Event(shard=shard, message=f"the worker of shard {shard} {abandoned[shard]}; it is given up"))


def _build(task: ShardTask, shard: int, listener) -> Exception | None:
    """The task: build one shard; what the user can mend is returned, since Ray would wrap what is raised."""
    ray = _import_ray()
    last_call = []

    def on_event(event: Event) -> None:
        last_call[:] = [listener.record.remote(event)]

    try:
        if not (Path(task.store) / MANIFEST).is_file():
            raise UserError(
                f"{task.store} cannot be seen on the node {socket.gethostname()}",
                allowed="a folder that all nodes share",
                do="choose an --out on a shared file system",
            )
        ShardBuilder(task).build(shard, on_event)
    except (UserError, OSError) as error:
        return error
    ray.wait(last_call, timeout=REACH_S)  # so that the driver hears everything before the task ends
    return None
