"""``wsrl export``: write stored fields as state_dicts, safetensors, PEFT adapters, a NumPy array, or pictures."""

from pathlib import Path

from wsrl.errors import UserError

FORMATS = ("images", "peft", "state_dict", "safetensors", "numpy")


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage
    from wsrl.store import WeightStore
    from wsrl.store.exporting import RECORD

    options = stage.parse(make_parser(), argv)
    if options.format not in FORMATS:
        raise UserError(f"format is {options.format!r}", allowed=", ".join(FORMATS), do="choose one of these")
    for name, value, least in (("num", options.num, 1), ("size", options.size, 2)):
        if value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")
    out = Path(options.out)
    with WeightStore.open(options.store) as store:
        rows = chosen_rows(store, options.ids, options.num, options.all)
        check_export(store, rows, options.format)
        stage.claim_folder(out, (RECORD,))
        export(store, rows, out, options.format, options.size)
    print(f"{len(rows)} fields are in {out}")
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("export", __doc__)
    parser.add_argument("store", type=str, help="folder of the store")
    parser.add_argument("--out", type=str, required=True, help="folder to write to")
    parser.add_argument("--format", type=str, default="images", help=", ".join(FORMATS))
    parser.add_argument(
        "--ids", type=list[str], default=[], help="ids of fields, as [a, b]; the first ones if not given"
    )
    parser.add_argument("--num", type=int, default=16, help="how many, where no ids are given")
    parser.add_argument("--all", type=bool, default=False, nargs="?", const=True, help="every field of the store")
    parser.add_argument("--size", type=int, default=256, help="longer side of a picture in pixels")
    return parser


def chosen_rows(store, ids: list[str], num: int, every: bool) -> list[int] | range:
    """Rows that are to be exported.

    Raises:
        UserError: An id is unknown or there twice, or all fields are asked for and some by name.
    """
    if every and ids:
        raise UserError("--all and --ids are given", allowed="one of them", do="leave out --ids")
    if len(set(ids)) != len(ids):
        raise UserError("--ids names a field twice", allowed="each once", do="mend --ids")
    return [store.row(field_id) for field_id in ids] or range(len(store) if every else min(num, len(store)))


def check_export(store, rows, format: str) -> None:
    """Refuse what cannot be exported before anything is written.

    Raises:
        UserError: An id is no name of a file, or standalone networks are asked for as adapters.
    """
    from wsrl.store.exporting import check_paths

    ids = store.ids
    check_paths([ids[row] for row in rows], format, format != "images" and store.manifest["base_sha256"] is not None)
    if format == "peft" and not (config := store.representation.config).is_adapter:
        raise UserError(
            f"the fields of {store.directory} are {config.kind}: they adapt no base field",
            allowed="a store of lora or mlora fields",
            do="export images or state_dict instead",
        )


def export(store, rows, out: Path, format: str, size: int) -> None:
    """Write fields, each under its id, with what is needed to use them beside.

    Args:
        store: The store.
        rows: Rows of fields.
        out: Folder to write to; made by the caller.
        format: One of ``FORMATS``.
        size: Longer side of a picture.
    """
    from wsrl.cli import stage
    from wsrl.store.exporting import field_path, write_beside, write_fields

    write_beside(store, rows, out, format)
    with stage.progress("export", len(rows)) as shown:
        if format != "images":
            write_fields(store, rows, out, format, shown.advance)
            return
        for row in rows:
            path = out / field_path(store.id_of(row), format)
            path.parent.mkdir(parents=True, exist_ok=True)
            stage.save_picture(store.field(row).image(size), path)
            shown.advance(1)
