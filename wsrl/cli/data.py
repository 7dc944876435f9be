"""``wsrl data``: list the named sources, write pictures as a folder of PNG files, or prepare shapes."""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from wsrl.durable import TEMPORARY, write_bytes
from wsrl.errors import SignalError, UserError

MARKER = ".wsrl-data.json"
INDEX = "index.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl data``.

    Returns:
        0 when all is written, 1 when some signals were bad and are listed.
    """
    args = make_parser().parse_args(argv)
    return show_sources() if args.action == "list" else prepare(args)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="wsrl data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="the named sources, one a line")
    about = "pictures: write PNG files in <split>/<class>/ folders; shapes: fill the cache, write a table of verdicts"
    prepare = actions.add_parser("prepare", help=about, description=about)
    prepare.add_argument("name", metavar="NAME", help="a named source, a folder, or a .npy or .npz file")
    prepare.add_argument("--out", type=Path, help="folder to write to; data/<name>/ if not given")
    prepare.add_argument("--limit", type=int, help="the first so many signals of each split")
    prepare.add_argument("--split", help="only this split")
    prepare.add_argument("--size", type=int, nargs="+", help="side in pixels, or height and width")
    prepare.add_argument("--mode", choices=("L", "RGB"), help="grey or colour")
    prepare.add_argument("--source", default="{}", help="further options of the source, such as '{cache: /scratch}'")
    prepare.add_argument("--processes", type=int, help="processes that prepare shapes; one per core if not given")
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


def prepare(args: argparse.Namespace) -> int:
    """Write the pictures, or prepare the shapes; what is there already is kept, so an interrupted run continues.

    Args:
        args: Parsed arguments.
    """
    from wsrl.cli.stage import tell_source
    from wsrl.signals import open_source

    if args.processes is not None and args.processes < 1:
        raise UserError(f"--processes is {args.processes}", allowed="a whole number from 1")
    source = open_source(args.name, **source_options(args))
    tell_source(source)
    out = args.out or Path("data") / folder_name(source.name).replace("-", "_")
    claim(out, source.description)
    if source.form.is_shape:
        from wsrl.cli.prepare_shapes import prepare_shapes, shape_index, tell_shapes

        records = prepare_shapes(source, args.processes)
        write_bytes(out / INDEX, shape_index(source, records).encode())
        return tell_shapes(source, records)
    rows, failures = write_pictures(source, out)
    write_bytes(out / INDEX, index_text(rows).encode())
    print(f"{len(rows)} pictures of {source.name} in {out}, listed in {out / INDEX}")
    for id, reason in failures:
        print(f"left out {id}: {reason}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(source)} pictures could not be used", file=sys.stderr)
    return 1 if failures else 0


def source_options(args: argparse.Namespace) -> dict:
    """Options of the source that were given.

    Args:
        args: Parsed arguments.
    """
    import yaml

    try:
        further = yaml.safe_load(args.source)
    except yaml.YAMLError as error:
        raise UserError(f"--source is {args.source!r}", allowed="options such as '{cache: /scratch}'") from error
    if not isinstance(further, dict):
        raise UserError(f"--source is {args.source!r}", allowed="options such as '{cache: /scratch}'")
    size = args.size[0] if args.size and len(args.size) == 1 else args.size
    named = {"limit": args.limit, "split": args.split, "size": size, "mode": args.mode}
    return {name: value for name, value in named.items() if value is not None} | further


def claim(out: Path, description: dict) -> None:
    """Make the folder ours, or see that it is.

    Args:
        out: Folder to write to.
        description: Description of the source, which an earlier run must have had too.

    Raises:
        UserError: The folder holds something else.
    """
    marker = out / MARKER
    text = json.dumps(description, indent=1, sort_keys=True)
    do = "give another folder with --out, or remove this one"
    if marker.is_file():
        if marker.read_text(encoding="utf-8") != text:
            raise UserError(f"{out} was prepared from another source or with other options", do=do)
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder", do=do)
    # The README of the checkout and raw downloads may stand beside the prepared pictures.
    others = [path.name for path in out.iterdir() if not is_guest(path)] if out.is_dir() else []
    if others:
        raise UserError(f"{out} is not empty and was not made by this command (it has {min(others)})", do=do)
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(marker, text.encode())


def is_guest(path: Path) -> bool:
    """Whether a file may stand in a folder that is about to become ours.

    Args:
        path: Entry of the folder.
    """
    return path.name == "README.md" or path.suffix in (".gz", TEMPORARY)


def write_pictures(source, out: Path) -> tuple[list[tuple[str, str, str, str]], list[tuple[str, str]]]:
    """Write every signal as a PNG file.

    Args:
        source: The opened source.
        out: Folder to write to.

    Returns:
        Rows of the index (file, id, label, split), and (id, reason) of the signals left out.
    """
    from wsrl.cli.display import show_progress

    rows, failures = [], []
    files = file_names(source)
    with show_progress("pictures written", len(source)) as shown:
        for index, (id, label, split) in enumerate(zip(source.ids, source.labels(), source.splits(), strict=True)):
            path = out / files[index]
            try:
                if not path.exists():
                    write_picture(source[index], path)
                rows.append((files[index], id, label or "", split or ""))
            except SignalError as error:
                failures.append((id, str(error)))
            shown.advance(1)
    return rows, failures


def write_picture(signal, path: Path) -> None:
    """Write a signal as a PNG file, whole or not at all."""
    from wsrl.signals.pictures.image import values_to_image

    encoded = io.BytesIO()
    values_to_image(signal.values, signal.form.grid).save(encoded, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encoded.getvalue())


def file_names(source) -> list[str]:
    """Relative path of each picture, ``<split>/<class>/<end of the id>.png``, unique also where case does not count.

    Args:
        source: The opened source.
    """
    names, taken = [], set()
    for id, label, split in zip(source.ids, source.labels(), source.splits(), strict=True):
        folder = "/".join(folder_name(part) for part in (split, label) if part is not None)
        stem = folder_name(id.rsplit("/", 1)[-1])
        name, copy = f"{folder}/{stem}.png".lstrip("/"), 1
        while name.lower() in taken:
            copy += 1
            name = f"{folder}/{stem}-{copy}.png".lstrip("/")
        taken.add(name.lower())
        names.append(name)
    return names


def folder_name(text: str) -> str:
    """A text as the name of a file on any system: ``T-shirt/top`` becomes ``T-shirt-top``.

    Args:
        text: A label, split or part of an id.
    """
    return re.sub(r"[^\w &()+,.=@-]", "-", text).strip(" .") or "-"


def index_text(rows: list[tuple[str, str, str, str]]) -> str:
    """The index as comma-separated values.

    Args:
        rows: File, id, label and split of each picture.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "id", "label", "split"))
    writer.writerows(rows)
    return text.getvalue()
