"""``wsrl export``: write stored fields as state_dicts, safetensors, PEFT adapters or a NumPy array, or what they show.

What they show are pictures (``images``), or for shapes ``meshes`` and ``turntables``, animations of one turn.
"""

from wsrl.errors import UserError


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status, 1 where a field has no mesh."""
    from wsrl.cli import parser as parsers
    from wsrl.cli.display import show_progress
    from wsrl.exchange.export_fields import ExportOptions, choose_rows, export_fields
    from wsrl.store import WeightStore

    parsed = parsers.parse(make_parser(), argv)
    names = ("format", "size", "resolution", "mesh_format", "units", "data")
    options = ExportOptions(**{name: parsed[name] for name in names})
    if parsed.all and parsed.ids:
        raise UserError("--all and --ids are given", allowed="one of them", do="leave out --ids")
    with WeightStore.open(parsed.store) as store:
        rows = choose_rows(store, parsed.ids, None if parsed.all else parsed.num)
        failed = export_fields(store, parsed.out, rows, options, progress=show_progress)
    print(f"{len(rows) - len(failed)} fields are in {parsed.out}")
    for field_id, reason in failed:
        print(f"{field_id}: {reason}")
    return 1 if failed else 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import parser as parsers
    from wsrl.exchange.export_fields import FORMATS, MESH_FORMATS

    parser = parsers.make_parser("export", __doc__)
    add = parser.add_argument
    add("store", type=str, help="folder of the store")
    add("--out", type=str, required=True, help="folder to write to")
    add("--format", type=str | None, default=None, help=f"{', '.join(FORMATS)}; images, or meshes of shapes")
    add("--ids", type=list[str], default=[], help="ids of fields, as [a, b]; the first ones if not given")
    add("--num", type=int, default=16, help="how many, where no ids are given")
    add("--all", type=bool, default=False, nargs="?", const=True, help="every field of the store")
    add("--size", type=int, default=256, help="longer side of a picture in pixels")
    add("--resolution", type=int, default=128, help="cells of a side of the grid that a mesh is found on")
    add("--mesh_format", type=str, default="glb", help=", ".join(MESH_FORMATS))
    add("--units", type=str, default="normalised", help="normalised: in the unit ball; file: as the shape was given")
    add("--data", type=str | None, default=None, help="the source; for --units file of a folder")
    return parser
