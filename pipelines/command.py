"""What every pipeline does around its experiment: read its configuration, and write the record with the time taken."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from pipelines.records import write_record
from wsrl.cli.parser import make_parser as make_command_parser
from wsrl.cli.parser import parse

Config = TypeVar("Config")


def make_parser(name: str, config: type, about: str):
    """The parser of ``python -m pipelines.<name>``.

    Args:
        name: Module of the pipeline.
        config: Dataclass of its configuration.
        about: What it does, in a line or more.
    """
    parser = make_command_parser(name, about.splitlines()[0])
    parser.prog = f"python -m pipelines.{name}"
    parser.add_class_arguments(config, as_group=False)
    return parser


def record_of(parser, config: type[Config], run: Callable[[Config], dict], argv: Sequence[str] | None = None) -> dict:
    """Run an experiment as the command line says and write its record.

    Args:
        parser: What :func:`make_parser` gave.
        config: The same dataclass; it has a ``name``, which is that of the record.
        run: The experiment: numbers by dotted key.
        argv: Arguments; None for those of the process.

    Returns:
        What the experiment found.
    """
    made = parser.instantiate(parse(parser, list(sys.argv[1:] if argv is None else argv)))
    given = config(**{key: made[key] for key in config.__dataclass_fields__})
    started = time.monotonic()
    results = run(given)
    pipeline = parser.prog.rpartition(".")[2]
    path = write_record(pipeline, given.name, results, config=asdict(given), elapsed_s=time.monotonic() - started)
    print(f"record: {path}")
    return results
