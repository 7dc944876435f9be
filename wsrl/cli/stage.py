"""What the stages share: their parsers, the data argument, progress, and the folder they write to."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    parser.set_defaults(defaults(first, source))
    options = parse(parser, argv)
    tell_passed_over(source)
    return options, source


def tell_passed_over(source) -> None:
    """Say which files of a source's folder are no signals, where there are any."""
    from wsrl.signals import passed_over

    if told := passed_over.tell_passed_over(source.passed_over):
        print(f"{source.name}: {told}", file=sys.stderr, flush=True)


def prepare_signals(source, indices) -> None:
    """Let a source compute, with all cores, what reading these signals needs; pictures need nothing."""
    import os

    if source.quantity == "intensity" or not indices:
        return
    with progress("signals prepared", len(indices)) as shown:
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
    recorded = _recorded(out).get("command", "") if command else ""
    if recorded and not recorded.startswith(f"wsrl {command}"):
        raise UserError(
            f"the output folder {out} is not ours: it holds the run `{recorded}`",
            allowed=f"a new or empty folder, or one of an earlier wsrl {command}",
            do="choose another --out",
        )


def _recorded(out: Path) -> dict:
    """The record of the run in a folder; empty where there is none that can be read."""
    try:
        record = json.loads((out / RUN_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def same_config(out: Path, config: dict) -> bool:
    """Whether the run recorded in ``out`` had this configuration."""
    recorded = _recorded(out).get("config")
    return recorded is not None and recorded == json.loads(json.dumps(config))


def save_picture(image, path: Path) -> None:
    """Write a picture whole or not at all.

    Args:
        image: A Pillow image.
        path: PNG file to write.
    """
    from io import BytesIO

    from wsrl.store.durable import write_bytes

    data = BytesIO()
    image.save(data, format="PNG")
    write_bytes(path, data.getvalue())


class Progress:
    """Says how far a loop is: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, what: str, total: int, every_s: float = 10.0):
        self.what, self.total, self.every_s = what, total, every_s
        self.done, self.started = 0, time.monotonic()
        self._last = self.started
        self._bar = None

    def expect(self, number: int) -> None:
        """Count ``number`` further items to do; fewer where it is negative."""
        self.total += number
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self, number: int, note: str = "") -> None:
        """Count ``number`` finished items; ``note`` stands behind the rate."""
        self.done += number
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
        elif now - self._last >= self.every_s or self.done == self.total:
            self._last = now
            rate = self.done / max(now - self.started, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            line = f"{self.what}: {self.done}/{self.total}  {rate:.1f}/s  {left:.0f} s left  {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Show the progress of a loop over ``total`` items."""
    shown = Progress(what, total)
    if not sys.stderr.isatty():
        yield shown
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        shown._bar, shown._task = bar, bar.add_task(what, total=total, note="")
        yield shown
