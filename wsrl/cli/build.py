"""``wsrl build``: fit every signal of a source into a weight store; continues what is there."""

import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsrl.cli.build_progress import shown
from wsrl.cli.display import say
from wsrl.errors import UserError
from wsrl.provenance import RUN_FILE

FIELDS_PER_SHARD = 8192


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some signals have no field."""
    from wsrl.cli import build_options, stage
    from wsrl.fitting.ray_engine import RayOptions

    if "--finish" in argv:
        from wsrl.cli.finish import main as finish

        return finish(argv)
    parser = build_options.make_parser(__doc__)
    options, source = stage.parse_for_data(parser, build_options.spell_out_kind(argv), build_options.data_defaults)
    given = {"address": options.ray_address, "cpus": options.ray_cpus, "gpus": options.ray_gpus}
    ray = RayOptions(**{name: value for name, value in given.items() if value is not None})
    compute = Compute(
        engine=options.engine, device=options.device, workers=options.workers, threads=options.threads, ray=ray
    )
    made = parser.instantiate(options)
    if not any(word.split("=")[0] == "--config" for word in argv):
        say(f"no --config: {made.representation}, {made.fit}")
    outcome = build_store(
        source,
        BuildPlan(representation=made.representation, fit=made.fit, base=options.base, num_shards=options.shards),
        Path(options.out),
        data=options.data,
        shard=options.shard,
        compute=compute,
        command=shlex.join(["wsrl", "build", *argv]),
    )
    return report(outcome)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a store is built from.

    Attributes:
        representation: What the weights are.
        fit: How a field is fitted.
        base: Folder of the base field, or None.
        num_shards: Number of shards, or None for one per 8,192 signals.
    """

    representation: object
    fit: object
    base: str | Path | None = None
    num_shards: int | None = None


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

    engine: str = "local"
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    ray: object = None

    def __post_init__(self):
        if self.engine not in ("local", "ray"):
            raise UserError(f"engine is {self.engine!r}", allowed="local, ray", do="leave out --engine")
        if self.engine == "ray" and self.workers is not None:
            raise UserError(
                "--workers is given with --engine ray", do="leave out --workers: Ray has workers of its own"
            )


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """What a build left: a folder, signals without a field with their reasons, and fields short of the quality."""

    directory: Path
    num_fields: int
    failures: list[tuple[str, str]]
    complete: bool
    num_short: int = 0


def build_store(
    source,
    plan: BuildPlan,
    out: Path,
    *,
    data: str | None = None,
    shard: str | None = None,
    compute: Compute = Compute(),
    command: str = "",
) -> BuildOutcome:
    """Fit every signal that has no outcome yet.

    Args:
        source: The signals.
        plan: Representation, fit, base and shards.
        out: Folder of the store, new or of the same plan.
        data: Name or path that opens the source again in other processes; without it this process works alone.
        shard: ``I/N`` to fit only shard I of N; None for all shards.
        compute: Processes, devices and threads.
        command: What the data card gives as the command.

    Raises:
        UserError: The plan does not fit the data, the folder holds something else, or the disk refuses.
    """
    from wsrl.fitting.devices import worker_devices

    devices = worker_devices(compute.device, compute.workers) if compute.engine == "local" else []
    representation, base = _representation(plan, source)
    chosen, num_shards = _shards(shard, plan.num_shards, source, out, len(devices))
    _create(source, plan, out, representation, base, num_shards, command)
    say(
        f"{plan.representation.kind}: {representation.layout.num_trainable} trainable of "
        f"{representation.layout.num_weights} numbers a field, {len(source)} signals, {num_shards} shard(s)"
    )
    with shown(out, chosen) as tell:
        _fit_shards(source, plan, out, chosen, devices, data, compute, tell)
    return finished(out)


def _representation(plan: BuildPlan, source):
    """The representation of a plan and its base field, which is None for a standalone network."""
    from wsrl.fields.base import BaseField
    from wsrl.fields.representation import Representation

    base = BaseField.from_pretrained(plan.base) if plan.base and plan.representation.is_adapter else None
    return Representation.build(plan.representation, base, **source.form.sizes), base


def _shards(shard: str | None, asked: int | None, source, out: Path, workers: int) -> tuple[list[int], int]:
    """The shards to build and how many there are: as asked for, as the store has, or enough for every worker."""
    from wsrl.store import schema

    default = max(-(-len(source) // FIELDS_PER_SHARD), min(workers, len(source)))
    if asked is None and (out / schema.MANIFEST).is_file():
        default = schema.read_manifest(out)["num_shards"]
    chosen, num_shards = parse_shard(shard, default if asked is None else asked)
    if shard is not None and asked not in (None, num_shards):
        wrong = f"--shard is {shard} and --shards is {asked}"
        raise UserError(wrong, allowed="the same number of shards in both", do="leave out --shards")
    return chosen, num_shards


def _create(source, plan: BuildPlan, out: Path, representation, base, num_shards: int, command: str) -> None:
    from wsrl.fitting.config import SPEED_KEYS
    from wsrl.store.writer import create_or_resume

    def save_base(folder: Path) -> None:
        base.save_pretrained(folder)
        record = Path(plan.base) / RUN_FILE
        if record.is_file():  # how the base field was made
            shutil.copyfile(record, folder / RUN_FILE)

    fit = {key: value for key, value in asdict(plan.fit).items() if key not in SPEED_KEYS}
    create_or_resume(
        out,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256() if base else None,
        source=source.description,
        form=source.form,
        fit=fit,
        num_signals=len(source),
        num_shards=num_shards,
        label_names=source.label_names,
        save_base=save_base if base else None,
        command=command,
        passed_over=source.passed_over,
    )


def _fit_shards(source, plan, out: Path, shards: list[int], devices: list[str], data, compute: Compute, tell) -> None:
    """Have every shard fitted: on a cluster, by workers of this machine, or here."""
    from wsrl.fitting.devices import worker_threads
    from wsrl.fitting.shards import ShardBuilder, ShardTask, located

    task = ShardTask(
        store=str(out),
        data="" if data is None else located(data),
        options=source.options.portable(),
        fit=plan.fit,
    )
    if compute.engine == "ray":
        from wsrl.fitting.ray_engine import build_on_ray

        threads = compute.threads or max(1, int(compute.ray.cpus))
        build_on_ray(replace(task, threads=threads), shards, compute.ray, tell, device=compute.device)
        return
    used = devices if data is not None else devices[:1]
    task = replace(task, threads=worker_threads(compute.threads, len(used)), device=used[0])
    if len(used) > 1:
        from wsrl.fitting.workers import build_with_workers

        build_with_workers(task, shards, used, tell)
        return
    builder = ShardBuilder(task, source)
    for number in shards:
        builder.build(number, tell)


def parse_shard(text: str | None, num_shards: int) -> tuple[list[int], int]:
    """The shards to build and how many there are.

    Raises:
        UserError: The text is not ``I/N`` with I from 0 to N - 1.
    """
    if text is None:
        return list(range(num_shards)), num_shards
    number, slash, total = text.partition("/")
    if not (slash and number.isdigit() and total.isdigit() and int(number) < int(total)):
        raise UserError(f"--shard is {text!r}", allowed="I/N with I from 0 to N - 1, such as 0/4", do="mend it")
    return [int(number)], int(total)


def finished(out: Path) -> BuildOutcome:
    """Record what is finished; what a store holds now."""
    from wsrl.store import WeightStore
    from wsrl.store.schema import read_manifest
    from wsrl.store.writer import finalize

    finalize(out)
    manifest = read_manifest(out)
    fields = sum(shard["count"] for shard in manifest["shards"])
    with WeightStore.open(out, partial=True) as store:
        failures, num_short = list(store.failures), int((store.statuses() == "short").sum())
    return BuildOutcome(
        directory=out, num_fields=fields, failures=failures, complete=manifest["complete"], num_short=num_short
    )


def report(outcome: BuildOutcome) -> int:
    """Say what came out; returns 1 where signals have no field."""
    state = "complete" if outcome.complete else "other shards are still to be built"
    print(f"{outcome.directory}: {outcome.num_fields} fields, {state}")
    if outcome.num_short:
        print(f"{outcome.num_short} fields took all steps without reaching fit.target_psnr; their status is `short`")
    if outcome.failures:
        print(f"{len(outcome.failures)} signals have no field:")
        for signal_id, reason in outcome.failures:
            print(f"  {signal_id}: {reason}")
    return 1 if outcome.failures else 0
