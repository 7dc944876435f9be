"""``wsrl export``: write stored fields as pictures or as PEFT adapters."""

from pathlib import Path

from wsrl.errors import UserError

FORMATS = ("images", "peft")


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage
    from wsrl.store import WeightStore

    options = stage.parse(make_parser(), argv)
    if options.format not in FORMATS:
        raise UserError(f"format is {options.format!r}", allowed=", ".join(FORMATS), do="choose one of these")
    for name, value, least in (("num", options.num, 1), ("size", options.size, 2)):
        if value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")
    out = Path(options.out)
    with WeightStore.open(options.store) as store:
        ids = options.ids or list(store.ids[: options.num])
        check_export(store, ids, options.format)
        stage.claim_folder(out, ("export.json",))
        export(store, ids, out, options.format, options.size)
    print(f"{len(ids)} fields are in {out}")
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("export", __doc__)
    parser.add_argument("store", type=str, help="folder of the store")
    parser.add_argument("--out", type=str, required=True, help="folder to write to")
    parser.add_argument("--format", type=str, default="images", help=" or ".join(FORMATS))
    parser.add_argument(
        "--ids", type=list[str], default=[], help="ids of fields, as [a, b]; the first ones if not given"
    )
    parser.add_argument("--num", type=int, default=16, help="how many, where no ids are given")
    parser.add_argument("--size", type=int, default=256, help="longer side of a picture in pixels")
    return parser


def check_export(store, ids: list[str], format: str) -> None:
    """Refuse what cannot be exported before anything is written.

    Raises:
        UserError: An id is unknown or leads out of the folder, or standalone networks are asked for as adapters.
    """
    for field_id in ids:
        store.row(field_id)
        if ".." in Path(field_id).parts:
            raise UserError(f"the id {field_id!r} leads out of the folder", allowed="ids without ..", do="leave it out")
    if format == "peft" and not (config := store.representation.config).is_adapter:
        raise UserError(
            f"the fields of {store.directory} are {config.kind}: they adapt no base field",
            allowed="a store of lora or mlora fields",
            do="export images instead",
        )


def export(store, ids: list[str], out: Path, format: str, size: int) -> None:
    """Write fields, each under its id.

    Args:
        store: The store.
        ids: Ids of fields.
        out: Folder to write to; made by the caller.
        format: ``images`` or ``peft``.
        size: Longer side of a picture.
    """
    from wsrl.cli.stage import save_picture
    from wsrl.provenance import write_json_atomic

    write_json_atomic(out / "export.json", {"store": str(store.directory), "format": format, "ids": ids})
    for field_id in ids:
        path = out / field_id.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "images":
            save_picture(store.field(field_id).image(size), path.with_name(path.name + ".png"))
        else:
            export_peft(store, field_id, path)


def export_peft(store, field_id: str, directory: Path) -> None:
    """Write one field as a PEFT adapter of the base field's trunk; see :func:`check_export`."""
    from wsrl.adapters.export import export_field

    config = store.representation.config
    export_field(
        store[field_id],
        form="add" if config.kind.startswith("lora") else config.form,
        trunk=store.base.trunk,
        out_dir=directory,
        masks={spec.name: spec.trainable() for spec in store.layout if spec.frozen is not None},
    )
