"""``wsrl data``: list the named sources, write pictures as a folder of PNG files, or prepare shapes."""

import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from wsrl.cli import parser as parsers
from wsrl.cli.display import show_progress
from wsrl.errors import UserError

ABOUT = "pictures: write PNG files in <split>/<class>/ folders; shapes: fill the cache, write a table of verdicts"
NUMBER = re.compile(r"\d[\d,.]*%?")


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl data``.

    Returns:
        0 when all is written, 1 when some signals were bad and are listed.
    """
    options = parsers.parse(make_parser(), list(argv))
    return show_sources() if options.action == "list" else prepare(options.prepare)


def make_parser():
    """The parser of the command line."""
    parser = parsers.make_parser("data", __doc__)
    actions = parser.add_subcommands(dest="action", required=True)
    actions.add_subcommand("list", parsers.make_parser("data list", "the named sources, one a line"))
    action = parsers.make_parser("data prepare", ABOUT)
    add = action.add_argument
    add("name", type=str, help="a named source, a folder, or a .npy or .npz file")
    add("--out", type=Path | None, default=None, help="folder to write to; data/<name>/ if not given")
    add("--limit", type=int | None, default=None, help="the first so many signals of each split")
    add("--split", type=str | None, default=None, help="only this split")
    add("--size", type=int | None, nargs="+", default=None, help="side in pixels, or height and width")
    add("--mode", type=Literal["L", "RGB"] | None, default=None, help="grey or colour")
    add("--source", type=dict[str, Any], default={}, help="further options of the source, such as '{cache: /scratch}'")
    add("--processes", type=int | None, default=None, help="processes that prepare shapes; one per core if not given")
    actions.add_subcommand("prepare", action, help=ABOUT)
    return parser


def show_sources() -> int:
    """Print each source with its description."""
    from wsrl.signals import source_names

    names = source_names()
    width = max(map(len, names))
    for name, line in names.items():
        print(f"{name:<{width}}  {line}")
    print("Or give a folder of pictures or of meshes, or a .npy or .npz file.")
    return 0


def prepare(options) -> int:
    """Write the pictures, or prepare the shapes; what is there already is kept, so an interrupted run continues."""
    from wsrl.signals import open_source
    from wsrl.signals.prepared import default_folder

    if options.processes is not None and options.processes < 1:
        raise UserError(f"--processes is {options.processes}", allowed="a whole number from 1")
    size = options.size[0] if options.size and len(options.size) == 1 else options.size
    named = {"limit": options.limit, "split": options.split, "size": size, "mode": options.mode}
    named = {name: value for name, value in named.items() if value is not None}
    source = open_source(options.name, **named | options.source)
    parsers.say_notes(source)
    out = options.out or default_folder(source)
    return shapes(source, out, options.processes) if source.form.is_shape else pictures(source, out)


def pictures(source, out: Path) -> int:
    """Write the pictures, and say which could not be used."""
    from wsrl.signals.prepared import INDEX, write_pictures

    written = write_pictures(source, out, show_progress)
    print(f"{len(written.rows)} pictures of {source.name} in {out}, listed in {out / INDEX}")
    for id, reason in written.failures:
        print(f"left out {id}: {reason}", file=sys.stderr)
    if written.failures:
        print(f"{len(written.failures)} of {len(source)} pictures could not be used", file=sys.stderr)
    return 1 if written.failures else 0


def shapes(source, out: Path, processes: int | None) -> int:
    """Prepare the shapes, and say how many came out how, and which were rejected and why."""
    from wsrl.signals.prepared import prepare_shapes

    records = prepare_shapes(source, out, processes, show_progress)
    verdicts = Counter(record.verdict for record in records)
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("used", "repaired", "rejected"))
    print(f"{len(records)} shapes of {source.name} in {source.options.cache}: {counts}")
    seconds = [record.quality["seconds"] for record in records if "seconds" in record.quality]
    if seconds:
        print(f"{statistics.median(seconds):.2f} s a shape (median), {max(seconds):.2f} s at most")
    for reason, number in common_reasons(records, "repaired").most_common():
        print(f"{number:6d} {reason}")
    rejected = [record for record in records if record.verdict == "rejected"]
    for record in rejected:
        print(f"left out {record.id}: {'; '.join(record.reasons)}", file=sys.stderr)
    if rejected:
        print(f"{len(rejected)} of {len(records)} shapes could not be used", file=sys.stderr)
    return 1 if rejected else 0


def common_reasons(records: list, verdict: str) -> Counter:
    """How many shapes of a verdict have each reason, whatever its numbers."""
    of_verdict = [record for record in records if record.verdict == verdict]
    return Counter(kind for record in of_verdict for kind in {NUMBER.sub("N", reason) for reason in record.reasons})
