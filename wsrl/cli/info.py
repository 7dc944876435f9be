"""``wsrl info DIR``: what a store holds, or with ``--nearest ID`` which of its fields are most like one of them."""

from pathlib import Path

from wsrl.errors import UserError

SIDE = 96


def main(argv: list[str]) -> int:
    """Run the command."""
    from rich.console import Console

    from wsrl.cli import parser as parsers
    from wsrl.store import WeightStore
    from wsrl.store.card import overview_tables

    options = parsers.parse(make_parser(), argv)
    _check_options(options)
    console = Console(highlight=False, soft_wrap=True)
    with WeightStore.open(options.directory, partial=True) as store:
        if options.nearest is not None:
            _show_nearest(store, options, console)
            return 0
        for title, head, lines in overview_tables(store, options.failures):
            console.print(_rendered(title, head, lines))
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import parser as parsers

    parser = parsers.make_parser("info", __doc__)
    add = parser.add_argument
    add("directory", type=str, help="the store that `wsrl build` wrote, or one shard of it")
    add("--failures", type=int, default=20, help="failures to list")
    add("--nearest", type=str, help="list the fields whose weights are nearest to those of the one with this id")
    add("-k", type=int, default=8, help="for --nearest: how many")
    add("--metric", type=str, default="cosine", help="for --nearest: cosine or euclidean, of standardised weights")
    gauge = "for --nearest: raw, or canonical: factors of adapters in their one form, whatever start they came from"
    add("--gauge", type=str, default="raw", help=gauge)
    add("--out", type=str, help="for --nearest: PNG file of what the fields show, the one asked about first")
    return parser


def _check_options(options) -> None:
    if options.out is not None and options.nearest is None:
        raise UserError("--out is given without --nearest", allowed="both", do="name a field with --nearest ID")
    if options.out is not None and Path(options.out).suffix.lower() != ".png":
        raise UserError(f"--out is {options.out}", allowed="a .png file", do="choose another --out")


def _show_nearest(store, options, console) -> None:
    """Print the nearest fields of one, and draw them where a file is given."""
    from wsrl.evaluation.retrieval import nearest_fields

    if options.out is not None:
        _check_drawable(store)
    row = store.row(options.nearest)
    neighbours = nearest_fields(store, row, options.k, options.metric, options.gauge)
    rows, lines = [row, *neighbours.rows.tolist()], []
    for rank, (neighbour, distance) in enumerate(zip(rows, [0.0, *neighbours.distances.tolist()])):
        record = store.record(neighbour)
        lines.append((rank or "query", record["id"], record["label"] or "", record["split"] or "", f"{distance:.4f}"))
    form = "" if options.gauge == "raw" else f"{options.gauge} "
    title = f"Nearest by {options.metric} distance of standardised {form}weights"
    console.print(_rendered(title, ("rank", "id", "label", "split", "distance"), lines))
    if options.out is not None:
        from wsrl.report.contact_sheet import save_picture

        out = Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_picture(_strip(store, rows, [f"{line[0]}: {line[2] or line[1]}" for line in lines]), out)
        console.print(f"the strip, the field asked about first, is in {options.out}")


def _check_drawable(store) -> None:
    """Refuse to draw what can't be seen, before anything is printed."""
    if not store.manifest["representation"]:
        raise UserError(f"{store.directory} doesn't say what its fields are", allowed="a store that `wsrl build` wrote")
    if not (store.form.is_picture or store.form.is_shape):
        raise store.field(0).without("picture", "2 coordinates to colours, or 3 to a distance")


def _strip(store, rows: list[int], titles: list[str]):
    """A row of what fields show, each under its title."""
    from wsrl.report.contact_sheet import beside, grid_sheet
    from wsrl.report.render import field_picture

    cells = [field_picture(store.field(row), SIDE) for row in rows]
    return beside([(title, grid_sheet([cell], 1, SIDE)) for title, cell in zip(titles, cells)])


def _rendered(title: str, head: tuple[str, ...], lines: list[tuple]):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in head:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*(Text(str(cell)) for cell in line))
    return table
