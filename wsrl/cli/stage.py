"""What the stages share: their parsers, the data argument, and the folder they write to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from wsrl.errors import UserError
from wsrl.provenance import RUN_FILE


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
    from argparse import ArgumentError

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
    from wsrl.signals import open_source

    given = [word for word in argv if not word.startswith("--print_config")]
    try:
        first = parse(parser, given)
    except UserError:
        if given == argv:
            raise
        parse(parser, argv)  # without data the configuration that fits any data is printed
        raise
    try:
        source = open_source(first.data, **first.source)
    except UserError as error:  # those of an option leave it to the command to say where it was given
        raise UserError(error.wrong, allowed=error.allowed, do=error.do or "mend --source") from error
    tell_source(source)
    parser.set_defaults(defaults(first, source))
    options = parse(parser, argv)
    return options, source


def tell_source(source) -> None:
    """Say what the user should know of how a source was read, and which files of its folder are no signals."""
    from wsrl.cli.display import say
    from wsrl.signals.passed_over import tell_passed_over

    for note in (*source.notes, tell_passed_over(source.passed_over)):
        if note:
            say(f"{source.name}: {note}")


def prepare_signals(source, indices) -> None:
    """Let a source compute, with all cores, what reading these signals needs; pictures need nothing."""
    import os

    if not source.form.is_shape or not indices:
        return
    from wsrl.cli.display import show_progress

    with show_progress("signals prepared", len(indices)) as shown:
        source.prepare(indices, os.cpu_count() or 1, shown.advance)


def dotted(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Leaves of nested values by dotted name; lists and tuples stay whole."""
    found = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        found |= dotted(key, value) if isinstance(value, dict) else {key: value}
    return found


def claim_folder(out: Path, ours: tuple[str, ...], command: str | None = None) -> None:
    """Make the output folder, or refuse one that holds something else.

    Args:
        out: The folder.
        ours: Names of which at least one is in a folder that such a run wrote.
        command: The command whose record, if there is one, the folder may hold; None for any.

    Raises:
        UserError: The folder is not empty and not ours, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", allowed="a new folder, or one of an earlier run", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    inside = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]
    if inside and not any(name in inside for name in ours):
        raise UserError(
            f"the output folder {out} is not ours: it holds {sorted(inside)[0]!r}",
            allowed="a new or empty folder, or one of an earlier run of this command",
            do="choose another --out",
        )
    recorded = recorded_run(out).get("command", "") if command else ""
    if recorded and not recorded.startswith(f"wsrl {command}"):
        raise UserError(
            f"the output folder {out} is not ours: it holds the run `{recorded}`",
            allowed=f"a new or empty folder, or one of an earlier wsrl {command}",
            do="choose another --out",
        )


def recorded_run(out: Path) -> dict:
    """The record of the run in a folder; empty where there is none that can be read."""
    try:
        record = json.loads((out / RUN_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def same_config(out: Path, config: dict) -> bool:
    """Whether the run recorded in ``out`` had this configuration."""
    recorded = recorded_run(out).get("config")
    return recorded is not None and recorded == json.loads(json.dumps(config))


def save_picture(image, path: Path) -> None:
    """Write a picture whole or not at all.

    Args:
        image: A Pillow image.
        path: PNG file to write.
    """
    from io import BytesIO

    from wsrl.durable import write_bytes

    data = BytesIO()
    image.save(data, format="PNG")
    write_bytes(path, data.getvalue())
