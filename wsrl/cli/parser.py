"""What the commands share: their parsers, and the argument DATA whose kind decides the defaults."""

from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from wsrl.cli.display import say, show_progress
from wsrl.errors import UserError

__all__ = ["add_source_arguments", "make_parser", "parse", "parse_for_data", "say_notes", "show_progress"]


def make_parser(command: str, description: str) -> ArgumentParser:
    """A parser with ``--config`` and ``--print_config``, and errors that end in a message."""
    parser = ArgumentParser(prog=f"wsrl {command}", description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file; options after it override its keys")
    return parser


def add_source_arguments(parser: ArgumentParser) -> None:
    """Add DATA and the options that every source takes."""
    parser.add_argument(
        "data", type=str, help="a named source (see wsrl data list), a folder of pictures or meshes, or a .npy file"
    )
    parser.add_argument(
        "--source", type=dict[str, Any], default={}, help="options of the source, such as {limit: 100, mode: RGB}"
    )


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Parse arguments; an unknown key or a wrong type becomes a message."""
    try:
        return parser.parse_args(argv)
    except (ArgumentError, UnicodeDecodeError) as error:  # the latter from a configuration that is no text
        command = parser.prog
        raise UserError(
            " ".join(str(error).split()),
            allowed=f"the keys and types that {command} --help lists",
            do=f"compare with {command} --print_config",
        ) from error


def parse_for_data(parser: ArgumentParser, argv: list[str], defaults: Callable[[Namespace, Any], dict[str, Any]]):
    """Parse arguments whose defaults depend on the data; ``--print_config`` shows those defaults.

    Args:
        parser: Has the arguments of :func:`add_source_arguments`.
        argv: The arguments.
        defaults: From what was given and the source to defaults by dotted name.

    Returns:
        The options and the opened source.
    """
    words = [word for word in argv if not word.startswith("--print_config")]
    try:
        first = parse(parser, words)
    except UserError:
        if words == argv:
            raise
        parse(parser, argv)  # without data the configuration that fits any data is printed
        raise
    source = open_data(first.data, first.source)
    parser.set_defaults(defaults(first, source))
    return parse(parser, argv), source


def open_data(data: str, options: Mapping[str, Any]):
    """Open the source of a command, and say what the user should know of it."""
    from wsrl.signals import open_source

    try:
        source = open_source(data, **options)
    except UserError as error:  # those of an option leave it to the command to say where it was given
        raise UserError(error.wrong, allowed=error.allowed, do=error.do or "mend --source") from error
    say_notes(source)
    return source


def say_notes(source) -> None:
    """Say what the user should know of how a source was read, and which files of its folder are no signals."""
    from wsrl.signals.passed_over import describe_passed_over

    for note in (*source.notes, describe_passed_over(source.passed_over)):
        if note:
            say(f"{source.name}: {note}")
