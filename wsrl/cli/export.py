"""``wsrl export``: write stored fields as state_dicts, safetensors, PEFT adapters or a NumPy array, or what they show.

What they show are pictures (``images``), or for shapes ``meshes`` and ``turntables``, animations of one turn.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from wsrl.errors import SignalError, UserError

FORMATS = ("images", "meshes", "turntables", "peft", "state_dict", "safetensors", "numpy")
OF_SHAPES = ("meshes", "turntables")
MESH_FORMATS = ("glb", "ply", "obj")
UNITS = ("normalised", "file")


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status, 1 where a field has no mesh."""
    from wsrl.cli import stage
    from wsrl.exchange.export_files import RECORD
    from wsrl.store import WeightStore

    options = stage.parse(make_parser(), argv)
    check_options(options)
    out = Path(options.out)
    with WeightStore.open(options.store) as store:
        rows = chosen_rows(store, options.ids, options.num, options.all)
        options.format = options.format or shows(store) or "images"
        kind = options.mesh_format if options.format == "meshes" else options.format
        check_export(store, rows, options.format, kind)
        transforms = file_transforms(store, rows, options)
        stage.claim_folder(out, (RECORD,))
        failed = export(store, rows, out, kind, options, transforms)
    print(f"{len(rows) - len(failed)} fields are in {out}")
    for field_id, reason in failed:
        print(f"{field_id}: {reason}")
    return 1 if failed else 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("export", __doc__)
    parser.add_argument("store", type=str, help="folder of the store")
    parser.add_argument("--out", type=str, required=True, help="folder to write to")
    parser.add_argument(
        "--format", type=str | None, default=None, help=f"{', '.join(FORMATS)}; images, or meshes of shapes"
    )
    parser.add_argument(
        "--ids", type=list[str], default=[], help="ids of fields, as [a, b]; the first ones if not given"
    )
    parser.add_argument("--num", type=int, default=16, help="how many, where no ids are given")
    parser.add_argument("--all", type=bool, default=False, nargs="?", const=True, help="every field of the store")
    parser.add_argument("--size", type=int, default=256, help="longer side of a picture in pixels")
    parser.add_argument(
        "--resolution", type=int, default=128, help="cells of a side of the grid that a mesh is found on"
    )
    parser.add_argument("--mesh_format", type=str, default="glb", help=", ".join(MESH_FORMATS))
    parser.add_argument(
        "--units", type=str, default="normalised", help="normalised: in the unit ball; file: as the shape was given"
    )
    parser.add_argument("--data", type=str | None, default=None, help="the source; for --units file of a folder")
    return parser


def check_options(options) -> None:
    """Refuse values that are out of range.

    Raises:
        UserError: One is.
    """
    chosen = (("format", FORMATS), ("mesh_format", MESH_FORMATS), ("units", UNITS))
    for name, allowed in chosen:
        if (value := getattr(options, name)) not in (*allowed, None):
            raise UserError(f"{name} is {value!r}", allowed=", ".join(allowed), do="choose one of these")
    for name, least in (("num", 1), ("size", 2), ("resolution", 2)):
        if (value := getattr(options, name)) < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")
    if options.units == "file" and options.format not in ("meshes", None):
        raise UserError("--units file is for meshes", allowed="--format meshes", do="leave out --units")


def shows(store) -> str | None:
    """What the fields of a store can be looked at as: ``images``, ``meshes``, or nothing that we know."""
    if not store.manifest["representation"] or not len(store):
        return None
    return "meshes" if store.form.is_shape else "images" if store.form.is_picture else None


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


def check_export(store, rows, format: str, kind: str) -> None:
    """Refuse what cannot be exported before anything is written.

    Raises:
        UserError: An id is no name of a file, standalone networks are asked for as adapters, or fields as what they
            are not.
    """
    from wsrl.exchange.export_files import LOOKS, check_paths

    ids = store.ids
    check_paths([ids[row] for row in rows], kind, kind not in LOOKS and store.manifest["base_sha256"] is not None)
    if format == "peft" and not (config := store.representation.config).is_adapter:
        raise UserError(
            f"the fields of {store.directory} are {config.kind}: they adapt no base field",
            allowed="a store of lora or mlora fields",
            do="export images or state_dict instead",
        )
    found = shows(store)
    if kind in LOOKS and len(store) and ("meshes" if format in OF_SHAPES else format) != found:
        raise UserError(
            f"the fields of {store.directory}, from {store.form.in_features} coordinates to "
            f"{store.form.out_features} values, have no {format}",
            allowed="images of pictures, meshes and turntables of shapes; state_dict, safetensors and numpy of any",
            do=f"choose --format {found or 'state_dict'}",
        )


def file_transforms(store, rows, options) -> Iterator[tuple] | None:
    """Centre and scale of each shape in its file, in the order of the rows; None where meshes stay normalised.

    Raises:
        UserError: The source is a folder, and is not given or another one.
    """
    from wsrl.evaluation.features import signals_of_rows
    from wsrl.store.source import open_store_source

    if options.units == "normalised":
        return None
    source = open_store_source(store, options.data)
    return ((signal.center, signal.scale) for signal in signals_of_rows(store, source, rows))


def export(store, rows, out: Path, kind: str, options, transforms: Iterator[tuple] | None) -> list[tuple[str, str]]:
    """Write fields, each under its id, with what is needed to use them beside.

    Args:
        store: The store.
        rows: Rows of fields.
        out: Folder to write to; made by the caller.
        kind: What the files are: a key of ``SUFFIXES`` or ``LOOKS`` of the library.
        options: The command line.
        transforms: What :func:`file_transforms` found.

    Returns:
        Ids of fields that have no mesh, with the reason.
    """
    from wsrl.cli.display import show_progress
    from wsrl.exchange.export_files import LOOKS, field_path, write_beside, write_fields

    look = {name: getattr(options, name) for name in looks_of(kind)}
    write_beside(store, rows, out, kind, look)
    failed = []
    with show_progress("export", len(rows)) as shown:
        if kind not in LOOKS:
            write_fields(store, rows, out, kind, shown.advance)
            return []
        show = shower(kind, options)
        for row in rows:
            path = out / field_path(store.id_of(row), kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            transform = None if transforms is None else next(transforms)
            try:
                show(store.field(row), path, transform)
            except SignalError as error:
                failed.append((store.id_of(row), str(error)))
            shown.advance(1)
    return failed


def looks_of(kind: str) -> tuple[str, ...]:
    """The options that change what files of a kind show; a folder holds files of one choice."""
    if kind in MESH_FORMATS:
        return "resolution", "units"
    return ("resolution", "size") if kind == "turntables" else ()


def shower(kind: str, options) -> Callable:
    """The function that writes what a field shows: ``(field, path, transform)``."""
    from wsrl.cli import stage
    from wsrl.durable import write_bytes
    from wsrl.exchange.export_files import write_mesh

    def image(field, path: Path, transform) -> None:
        stage.save_picture(field.image(options.size), path)

    def mesh(field, path: Path, transform) -> None:
        write_mesh(field.mesh(options.resolution, transform=transform), path)

    def turn(field, path: Path, transform) -> None:
        from wsrl.report.render import gif, turntable

        write_bytes(path, gif(turntable(field.mesh(options.resolution), size=options.size)))

    return {"images": image, "turntables": turn}.get(kind, mesh)
