"""``wsrl run``: the whole flow on a named source or on a folder of yours.

Base field, store of fields, classifier and diffusion model over the weights, scores, and pictures to look at. A run
that was interrupted goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from wsrl.cli import parser as parsers
from wsrl.cli.display import say, show_progress

if TYPE_CHECKING:
    from wsrl.flow import FlowConfig
    from wsrl.signals.source import Source


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some signals have no field."""
    from wsrl.flow import default_flow, limited_source

    parser = make_parser()
    options, source = parsers.parse_for_data(parser, argv, data_defaults)
    whole, source = source, limited_source(source, options.data, options.source)
    if source is not whole:
        say(f"{len(source)} of {len(whole)} signals are used; choose with --source '{{limit: ...}}'")
    flow = parser.instantiate(options).flow.with_defaults(default_flow(source))
    return flow_command(source, flow, options, shlex.join(["wsrl", "run", *argv]), data=options.data)


def make_parser() -> ArgumentParser:
    """The parser of the command line."""
    from wsrl.flow import FlowConfig

    parser = parsers.make_parser("run", __doc__)
    parsers.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder of the run")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_class_arguments(FlowConfig, "flow", help="every stage; defaults fit the kind and size of the data")
    return parser


def data_defaults(options: Namespace, source: Source) -> dict:
    """Defaults by dotted name that fit the form and the number of the signals."""
    from wsrl.flow import default_flow, limited_source
    from wsrl.provenance import dotted

    flow = default_flow(limited_source(source, options.data, options.source))
    models = {"flow.classifier": flow.classifier, "flow.diffusion": flow.diffusion}
    plain = {key: value for key, value in asdict(flow).items() if key not in ("classifier", "diffusion")}
    return dotted("flow", plain) | models


def flow_command(source: Source, flow: FlowConfig, options: Namespace, command: str, data: str | None = None) -> int:
    """Run the flow and say what came out; returns 1 where some signals have no field."""
    from wsrl.cli.build import report
    from wsrl.flow import run_flow

    outcome = run_flow(
        source,
        flow,
        out=options.out,
        data=data,
        device=options.device,
        command=command,
        progress=show_progress,
        built=report,
    )
    print(*_ending(source, outcome.folder, outcome.metrics), sep="\n")
    return 1 if outcome.store.failures else 0


def _ending(source: Source, out: Path, metrics: dict[str, float]) -> list[str]:
    """What a person reads at the end: what was made, its figures, where to look, and how long it took."""
    from wsrl.cli.summary import INDENT, summary
    from wsrl.provenance import METRICS_FILE

    def line(name: str, text: str) -> str:
        return f"{name + ':':<{INDENT}}{text}"

    return [
        f"{out}: base field, fields and models of {len(source):,} signals of {source.name}",
        *summary(metrics),
        line("look at", f"{out / 'samples.png'}, {out / 'reconstruction.png'}"),
        line("all figures", f"{out / METRICS_FILE}"),
        line("took", f"{metrics['elapsed_s']:.0f} s"),
    ]
