"""``wsrl base``: train a base field on the training signals of a source."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from wsrl.cli import parser as parsers
from wsrl.cli.display import say, show_progress

if TYPE_CHECKING:
    from wsrl.signals.source import Source


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.training.base import train_base

    parser = make_parser()
    options, source = parsers.parse_for_data(parser, argv, data_defaults)
    config = parser.instantiate(options).train
    if not any(word.split("=")[0] == "--config" for word in argv):
        say(f"no --config: {config}")
    command = shlex.join(["wsrl", "base", *argv])
    base = train_base(source, config, out=options.out, device=options.device, command=command, progress=show_progress)
    for name, value in base.metrics.items():
        print(f"{name:<32} {value:.3f}")
    return 0


def make_parser() -> ArgumentParser:
    """The parser of the command line."""
    from wsrl.training.base_field import BaseTrainingConfig

    parser = parsers.make_parser("base", __doc__)
    parsers.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder to write the base field to")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_class_arguments(BaseTrainingConfig, "train", help="how the base field is trained")
    return parser


def data_defaults(options: Namespace, source: Source) -> dict:
    """Defaults by dotted name that fit the form and the number of the signals."""
    from wsrl.provenance import dotted
    from wsrl.training.base import default_base

    return dotted("train", asdict(default_base(source.form, len(source))))
