"""A whole store: every signal of a source fitted, in this process, by workers of this machine, or on a cluster."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.build_progress import shown_build
from wsrl.fitting.defaults import default_fit, default_representation, sizes_explained
from wsrl.fitting.devices import worker_devices, worker_threads
from wsrl.fitting.engine import FitConfig
from wsrl.fitting.fit_config import SPEED_KEYS
from wsrl.fitting.prior import NUM_SIGNALS, first_pass
from wsrl.fitting.ray_engine import RayOptions, build_on_ray
from wsrl.fitting.shard_builder import OnEvent, ShardBuilder, ShardTask, located
from wsrl.fitting.workers import build_with_workers
from wsrl.options import check, one_of, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.provenance import RUN_FILE
from wsrl.signals.source import Source, training_indices
from wsrl.store import WeightStore, schema
from wsrl.store.directory import keep_prior
from wsrl.store.writer import ShardBusy, ShardWriter, create_or_resume, finalize

Base = BaseField | str | os.PathLike | None
"""A base field, or the folder of one, which is what ``train_base`` gives too; None for standalone networks."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a build computes; beyond rounding this changes the speed alone.

    Attributes:
        engine: ``local`` or ``ray``.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        workers: Processes of the local engine; None is one per visible GPU, else this process alone.
        threads: Torch threads of each process, or None to share out the cores (one with Ray).
        ray: Cluster and requests of the engine ``ray``.
    """

    engine: str = option("local", one_of("local", "ray"))
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    ray: RayOptions = RayOptions()

    def __post_init__(self):
        check(self)
        if self.engine == "ray" and self.workers is not None:
            raise UserError(
                "--workers is given with --engine ray", do="leave out --workers: Ray has workers of its own"
            )


def build_store(
    source: Source,
    representation: RepresentationConfig | None = None,
    fit: FitConfig | None = None,
    *,
    out: str | os.PathLike,
    base: Base = None,
    num_shards: int | None = None,
    shard: tuple[int, int] | None = None,
    data: str | None = None,
    compute: Compute = Compute(),
    command: str = "",
    progress: ShowProgress = silent,
) -> WeightStore:
    """Fit every signal that has no outcome yet.

    Signals without a field are listed with their reasons in :attr:`WeightStore.failures`.

    Args:
        source: The signals.
        representation: What the weights are; None for the default of adapters.
        fit: How a field is fitted; None for the default of the representation and the grid.
        out: Folder of the store, new or of the same plan.
        base: The base field; adapters need one.
        num_shards: Number of shards, or None for one per 8,192 signals.
        shard: ``(i, n)`` to fit only shard i of n; None for all shards.
        data: Name or path that opens the source again in other processes; without it this process works alone.
        compute: Processes, devices and threads.
        command: What the data card gives as the command.
        progress: Shows what is done.

    Returns:
        The store, with the shards that are finished.

    Raises:
        UserError: The plan does not fit the data, the folder holds something else, or the disk refuses.
    """
    out = Path(out)
    config = representation or default_representation(RepresentationConfig().kind, source.form)
    fit = fit or default_fit(config.kind, source.form)
    devices = worker_devices(compute.device, compute.workers) if compute.engine == "local" else []
    # An unfinished store of the same plan is continued, whose number of shards stands.
    base = base if config.is_adapter else None
    made, num_shards = _representation(config, base, source), _num_shards(source, out, num_shards, shard, len(devices))
    _create(source, fit, out, made, base, num_shards, command)
    if fit.prior_strength and fit.prior_scale == "data":
        _keep_prior(source, fit, out, made, compute, progress)
    sizes = f"{made.layout.num_trainable} trainable of {made.layout.num_weights} parameters a field"
    say(progress, f"{config.kind}: {sizes}, {len(source)} signals, {num_shards} shard(s)")
    # Every shard is fitted wherever there is compute; each is written whole, so a killed build goes on here.
    where = "" if data is None else located(data)
    task = ShardTask(store=str(out), data=where, options=source.options.portable(), fit=fit)
    shards = list(range(num_shards)) if shard is None else [shard[0]]
    with shown_build(out, shards, progress) as on_event:
        _fit_shards(task, source, shards, devices, compute, on_event)
    return complete(out)


def _representation(config: RepresentationConfig, base: Base, source: Source) -> Representation:
    field = base if base is None or isinstance(base, BaseField) else BaseField.from_pretrained(base)
    return Representation.build(config, field, **source.form.sizes)


def _num_shards(source: Source, out: Path, asked: int | None, shard: tuple[int, int] | None, workers: int) -> int:
    """As many shards as asked for, as the store has, or enough for every worker."""
    if shard is not None:
        number, total = shard
        if asked not in (None, total):
            wrong = f"--shard is {number}/{total} and --shards is {asked}"
            raise UserError(wrong, allowed="the same number of shards in both", do="leave out --shards")
        return total
    if asked is not None:
        return asked
    if (out / schema.MANIFEST).is_file():
        return schema.read_manifest(out)["num_shards"]
    return max(-(-len(source) // schema.FIELDS_PER_SHARD), min(workers, len(source)))


def _create(
    source: Source, fit: FitConfig, out: Path, made: Representation, base: Base, num_shards: int, command: str
) -> None:
    field = made.base

    def save_base(folder: Path) -> None:
        field.save_pretrained(folder)
        record = None if isinstance(base, BaseField) else Path(base) / RUN_FILE
        if record is not None and record.is_file():  # how the base field was made
            shutil.copyfile(record, folder / RUN_FILE)

    create_or_resume(
        out,
        layout=made.layout,
        representation=made.to_dict(),
        base_sha256=field.sha256() if field else None,
        source=source.description,
        form=source.form,
        fit={key: value for key, value in asdict(fit).items() if key not in SPEED_KEYS},
        num_signals=len(source),
        num_shards=num_shards,
        label_names=source.label_names,
        save_base=save_base if field else None,
        command=command,
        passed_over=source.passed_over,
        sizes=sizes_explained(made, fit, source.form),
    )


def _keep_prior(
    source: Source, fit: FitConfig, out: Path, made: Representation, compute: Compute, progress: ShowProgress
) -> None:
    """Find the widths of the prior in a first pass over training signals, unless an earlier build did."""

    def find() -> Tensor:
        say(progress, f"first pass: the widths of the prior, from {NUM_SIGNALS} signals at most")
        device = worker_devices(compute.device, None)[0]
        return first_pass(source, training_indices(source), made, fit, device)

    keep_prior(out, made.layout, find)


def _fit_shards(
    task: ShardTask, source: Source, shards: Sequence[int], devices: Sequence[str], compute: Compute, on_event: OnEvent
) -> None:
    """Have every shard fitted: on a cluster, by workers of this machine, or here."""
    if compute.engine == "ray":
        threads = compute.threads or max(1, int(compute.ray.cpus))
        build_on_ray(replace(task, threads=threads), shards, compute.ray, on_event, device=compute.device)
        return
    used = devices if task.data else devices[:1]
    task = replace(task, threads=worker_threads(compute.threads, len(used)), device=used[0])
    if len(used) > 1:
        build_with_workers(task, shards, used, on_event)
        return
    builder = ShardBuilder(task, source)
    for number in shards:
        builder.build(number, on_event)


def complete(out: str | os.PathLike) -> WeightStore:
    """Record which shards are finished, and open the store with them."""
    finalize(Path(out))
    return WeightStore.open(out, partial=True)


def assemble_shards(out: str | os.PathLike) -> list[str]:
    """Assemble the shards all of whose signals are done, without the data.

    Args:
        out: A store whose shards were built one by one.

    Returns:
        The other shards as text, with how far they are.
    """
    out = Path(out)
    num_shards, missing = schema.read_manifest(out)["num_shards"], []
    for shard in range(num_shards):
        if (out / schema.shard_name(shard, num_shards)).exists():
            continue
        # a shard all of whose rows are there is assembled; of another one, how far it is
        try:
            with ShardWriter(out, shard) as writer:
                if writer.done == set(writer.indices):
                    writer.finish()
                    continue
                state = f"{len(writer.done)} of {len(writer.indices)} signals done"
        except ShardBusy:
            state = "another process is at work on it"
        missing.append(f"{shard}/{num_shards}: {state}")
    return missing
