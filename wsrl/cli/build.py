"""``wsrl build``: fit every signal of a source into a weight store; continues what is there."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from wsrl.errors import UserError

FIELDS_PER_SHARD = 8192


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some signals have no field."""
    from wsrl.cli import stage

    parser = make_parser()
    options, source = stage.parse_for_data(parser, _spell_out_kind(argv), data_defaults)
    if options.engine != "local":
        raise UserError(f"engine is {options.engine!r}", allowed="local", do="leave out --engine")
    made = parser.instantiate(options)
    if not any(word.split("=")[0] == "--config" for word in argv):
        print(f"no --config: {made.representation}, {made.fit}", file=sys.stderr)
    outcome = build_store(
        source,
        BuildPlan(representation=made.representation, fit=made.fit, base=options.base, num_shards=options.shards),
        Path(options.out),
        shard=options.shard,
        device=options.device,
        command=shlex.join(["wsrl", "build", *argv]),
    )
    return report(outcome)


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage
    from wsrl.fields.representation import RepresentationConfig
    from wsrl.fitting.engine import FitConfig

    parser = stage.make_parser("build", __doc__)
    stage.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder of the store")
    parser.add_argument("--base", type=str | None, default=None, help="folder of a base field; adapters need one")
    parser.add_argument("--shard", type=str | None, default=None, metavar="I/N", help="fit only shard I (from 0) of N")
    parser.add_argument("--shards", type=int | None, default=None, help="number of shards; one per 8,192 signals")
    parser.add_argument("--engine", type=str, default="local", help="local")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_class_arguments(RepresentationConfig, "representation", help="what the weights of one field are")
    parser.add_class_arguments(FitConfig, "fit", help="how every field is fitted")
    return parser


def data_defaults(options, source) -> dict:
    """Defaults by dotted name that fit the kind of representation asked for and the grid of the data."""
    from wsrl.cli.defaults import default_fit, default_representation
    from wsrl.cli.stage import dotted

    kind, grid = options.representation.kind, source.signal_shape[0]
    representation = asdict(default_representation(kind))
    del representation["kind"]  # stays what was given
    return dotted("representation", representation) | dotted("fit", asdict(default_fit(kind, grid)))


def _spell_out_kind(argv: list[str]) -> list[str]:
    """``--representation KIND`` and ``--representation=KIND`` are short for ``--representation.kind KIND``."""
    short = "--representation"
    return [f"{short}.kind{a[len(short) :]}" if a == short or a.startswith(f"{short}=") else a for a in argv]


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
class BuildOutcome:
    """What a build left: its folder, and the signals without a field with their reasons."""

    directory: Path
    num_fields: int
    failures: list[tuple[str, str]]
    complete: bool


def build_store(
    source, plan: BuildPlan, out: Path, *, shard: str | None = None, device: str = "auto", command: str = ""
) -> BuildOutcome:
    """Fit every signal that has no outcome yet.

    Args:
        source: The signals.
        plan: Representation, fit, base and shards.
        out: Folder of the store, new or of the same plan.
        shard: ``I/N`` to fit only shard I of N; None for all shards.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What the data card gives as the command.

    Raises:
        UserError: The plan does not fit the data, the folder holds something else, or the disk refuses.
    """
    from wsrl.cli.stage import choose_device
    from wsrl.fields.base import BaseField
    from wsrl.fields.representation import Representation
    from wsrl.store.writer import create_or_resume

    target = choose_device(device)
    grid, channels = source.signal_shape
    base = BaseField.from_pretrained(plan.base) if plan.base and plan.representation.is_adapter else None
    representation = Representation.build(plan.representation, base, in_features=len(grid), out_features=channels)
    default_shards = -(-len(source) // FIELDS_PER_SHARD)
    chosen, num_shards = parse_shard(shard, default_shards if plan.num_shards is None else plan.num_shards)
    if shard is not None and plan.num_shards not in (None, num_shards):
        wrong = f"--shard is {shard} and --shards is {plan.num_shards}"
        raise UserError(wrong, allowed="the same number of shards in both", do="leave out --shards")
    # The batch size changes the speed alone, so a build may go on with another one.
    fit = {key: value for key, value in asdict(plan.fit).items() if key != "batch_size"}
    create_or_resume(
        out,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256() if base else None,
        source=source.description,
        fit=fit,
        num_signals=len(source),
        num_shards=num_shards,
        label_names=source.label_names,
        save_base=base.save_pretrained if base else None,
        command=command,
    )
    print(
        f"{plan.representation.kind}: {representation.layout.num_trainable} trainable of "
        f"{representation.layout.num_weights} numbers a field, {len(source)} signals, {num_shards} shard(s)",
        file=sys.stderr,
    )
    for number in chosen:
        _build_shard(out, number, representation, source, plan.fit, target)
    return _finish(out)


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


def _build_shard(out: Path, number: int, representation, source, config, device) -> None:
    from wsrl.cli.stage import progress
    from wsrl.fitting.engine import fit, read_signals
    from wsrl.store.writer import ShardWriter

    with ShardWriter(out, number) as writer:
        for name, reason in writer.discarded:
            print(f"damaged and fitted again: {name}: {reason}", file=sys.stderr)
        todo = [index for index in writer.indices if index not in writer.done]
        if todo:
            with progress(f"shard {number}", len(todo)) as shown:
                results = fit(representation, read_signals(source, todo), config, device=device)
                for segment in segments(results, max(config.batch_size, 64)):
                    writer.write_segment(segment)
                    scores = [result.metrics["psnr"] for result in segment if result.weights is not None]
                    shown.advance(len(segment), f"{sum(scores) / len(scores):.1f} dB" if scores else "")
        writer.finish()


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


def _finish(out: Path) -> BuildOutcome:
    from wsrl.store import WeightStore
    from wsrl.store.schema import read_manifest
    from wsrl.store.writer import finalize

    finalize(out)
    manifest = read_manifest(out)
    fields = sum(shard["count"] for shard in manifest["shards"])
    with WeightStore.open(out, partial=True) as store:
        failures = list(store.failures)
    return BuildOutcome(directory=out, num_fields=fields, failures=failures, complete=manifest["complete"])


def report(outcome: BuildOutcome) -> int:
    """Say what came out; returns 1 where signals have no field."""
    state = "complete" if outcome.complete else "other shards are still to be built"
    print(f"{outcome.directory}: {outcome.num_fields} fields, {state}")
    if outcome.failures:
        print(f"{len(outcome.failures)} signals have no field:")
        for signal_id, reason in outcome.failures:
            print(f"  {signal_id}: {reason}")
    return 1 if outcome.failures else 0
