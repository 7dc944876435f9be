"""``wsrl build``: fit every signal of a source into a weight store; continues what is there."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from wsrl.cli import parser as parsers
from wsrl.cli.display import say, show_progress
from wsrl.errors import UserError

if TYPE_CHECKING:
    from wsrl.signals.source import Source
    from wsrl.store import WeightStore

ABOUT_SIZES = (
    "The size of fields and how they are fitted follow the grid and the channels of the data; the data card says what "
    "was chosen."
)
ABOUT_FINISH = (
    "``wsrl build --finish --out DIR``: complete a store whose shards were built one by one, without the data."
)


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some signals have no field."""
    if "--finish" in argv:
        return finish(argv)
    from wsrl.fitting.build import build_store

    parser = make_parser()
    options, source = parsers.parse_for_data(parser, spell_out_kind(argv), data_defaults)
    made = parser.instantiate(options)
    if not any(word.split("=")[0] == "--config" for word in argv):
        say(f"no --config: {made.representation}, {made.fit}")
    with build_store(
        source,
        made.representation,
        made.fit,
        base=options.base,
        out=options.out,
        num_shards=options.shards,
        shard=None if options.shard is None else parse_shard(options.shard),
        data=options.data,
        compute=_compute(options),
        command=shlex.join(["wsrl", "build", *argv]),
        progress=show_progress,
    ) as store:
        return report(store)


def make_parser() -> ArgumentParser:
    """The parser of the command line."""
    from wsrl.fields.representation import RepresentationConfig
    from wsrl.fitting.defaults import TRADE
    from wsrl.fitting.engine import FitConfig

    parser = parsers.make_parser("build", f"{__doc__} {ABOUT_SIZES} {TRADE}")
    parsers.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder of the store")
    parser.add_argument("--base", type=str | None, default=None, help="folder of a base field; adapters need one")
    parser.add_argument("--shard", type=str | None, default=None, metavar="I/N", help="fit only shard I (from 0) of N")
    parser.add_argument("--shards", type=int | None, default=None, help="number of shards; one per 8,192 signals")
    parser.add_argument(
        "--finish", action="store_true", help="with --out alone: complete a store whose shards were built one by one"
    )
    _add_compute_arguments(parser)
    parser.add_class_arguments(RepresentationConfig, "representation", help="what the weights of one field are")
    parser.add_class_arguments(FitConfig, "fit", help="how every field is fitted")
    return parser


def _add_compute_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--engine", type=str, default="local", help="local, or ray for the nodes of a cluster that share their files")
    add("--device", type=str, default="auto", help="auto (all visible GPUs, else cpu), cpu or cuda[:i]")
    add("--workers", type=int | None, default=None, help="processes of the local engine; one per GPU")
    add("--threads", type=int | None, default=None, help="threads of each process; the cores shared out, 1 with ray")
    add("--ray-address", type=str | None, default=None, help="auto, HOST:PORT or ray://HOST:PORT of the cluster")
    add("--ray-cpus", type=float | None, default=None, help="cores that Ray keeps for a shard; its threads")
    add("--ray-gpus", type=float | None, default=None, help="GPUs that Ray keeps for a shard; 1 where there are any")


def _compute(options: Namespace):
    """Where to compute, as the options say."""
    from wsrl.fitting.build import Compute
    from wsrl.fitting.ray_engine import RayOptions

    asked = {"address": options.ray_address, "cpus": options.ray_cpus, "gpus": options.ray_gpus}
    ray = RayOptions(**{name: value for name, value in asked.items() if value is not None})
    return Compute(
        engine=options.engine, device=options.device, workers=options.workers, threads=options.threads, ray=ray
    )


def data_defaults(options: Namespace, source: Source) -> dict:
    """Defaults by dotted name that fit the kind of representation asked for and the grid of the data."""
    from wsrl.fitting.defaults import default_fit, default_representation
    from wsrl.provenance import dotted

    kind = options.representation.kind
    representation = asdict(default_representation(kind, source.form))
    del representation["kind"]  # stays what was given
    return dotted("representation", representation) | dotted("fit", asdict(default_fit(kind, source.form)))


def spell_out_kind(argv: list[str]) -> list[str]:
    """``--representation KIND`` and ``--representation=KIND`` are short for ``--representation.kind KIND``."""
    short = "--representation"
    return [f"{short}.kind{a[len(short) :]}" if a == short or a.startswith(f"{short}=") else a for a in argv]


def parse_shard(text: str) -> tuple[int, int]:
    """The number of a shard and how many there are, from ``I/N``.

    Raises:
        UserError: The text is not ``I/N`` with I from 0 to N - 1.
    """
    number, slash, total = text.partition("/")
    if not (slash and number.isdigit() and total.isdigit() and int(number) < int(total)):
        raise UserError(f"--shard is {text!r}", allowed="I/N with I from 0 to N - 1, such as 0/4", do="mend it")
    return int(number), int(total)


def finish(argv: list[str]) -> int:
    """Complete a store, or list the shards that are missing; returns 1 then, and where signals have no field."""
    from wsrl.fitting.build import assemble_shards, complete

    parser = parsers.make_parser("build --finish", ABOUT_FINISH)
    parser.add_argument("--finish", action="store_true", help="complete the store, or say which shards are missing")
    parser.add_argument("--out", type=str, required=True, metavar="DIR", help="the store")
    out = parsers.parse(parser, argv).out
    missing = assemble_shards(out)
    if missing:
        print(f"{out}: {len(missing)} shards are missing:", *missing, sep="\n  ")
        print("What to do: run the same `wsrl build ... --shard I/N` for these; what they have finished is kept.")
        return 1
    with complete(out) as store:
        return report(store)


def report(store: WeightStore) -> int:
    """Say what came out; returns 1 where signals have no field."""
    state = "complete" if store.manifest["complete"] else "other shards are still to be built"
    print(f"{store.directory}: {len(store)} fields, {state}")
    num_short, failures = int((store.statuses() == "short").sum()), store.failures
    if num_short:
        print(f"{num_short} fields took all steps without reaching fit.target_psnr; their status is `short`")
    if failures:
        print(f"{len(failures)} signals have no field:")
        for signal_id, reason in failures:
            print(f"  {signal_id}: {reason}")
    return 1 if failures else 0
