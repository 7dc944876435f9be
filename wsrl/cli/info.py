"""`wsrl info DIR`: what a store holds, or with ``--nearest ID`` which of its fields are most like one of them."""

import argparse
from pathlib import Path

from wsrl.errors import UserError

CELL = 96
MESH_RESOLUTION = 48


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl info``.

    Returns:
        0.

    Raises:
        UserError: The folder is no store, or there is no such field.
    """
    parser = argparse.ArgumentParser(prog="wsrl info", description="Show what a weight store holds.")
    parser.add_argument("directory", metavar="DIR", help="the store that `wsrl build` wrote, or one shard of it")
    parser.add_argument("--failures", type=int, default=20, metavar="N", help="failures to list")
    parser.add_argument(
        "--nearest", metavar="ID", help="list the fields whose weights are nearest to those of this one"
    )
    parser.add_argument("-k", type=int, default=8, metavar="K", help="for --nearest: how many")
    parser.add_argument(
        "--metric", default="cosine", help="for --nearest: cosine or euclidean, of standardised weights"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="for --nearest: PNG file of what the fields show, the one asked about first",
    )
    options = parser.parse_args(argv)
    _check_options(options)
    from rich.console import Console

    from wsrl.store import WeightStore

    console = Console(highlight=False, soft_wrap=True)
    with WeightStore.open(options.directory, partial=True) as store:
        if options.nearest is not None:
            _show_nearest(store, options, console)
            return 0
        for title, head, lines in _tables(store, options.failures):
            console.print(_rendered(title, head, lines))
    return 0


def _check_options(options: argparse.Namespace) -> None:
    if options.out is not None and options.nearest is None:
        raise UserError("--out is given without --nearest", allowed="both", do="name a field with --nearest ID")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise UserError(f"--out is {options.out}", allowed="a .png file", do="choose another --out")


def _show_nearest(store, options: argparse.Namespace, console) -> None:
    """Print the nearest fields of one, and draw them where a file is given."""
    from wsrl.evaluation.retrieval import nearest_fields

    if options.out is not None:
        _check_looks(store)
    row = store.row(options.nearest)
    found = nearest_fields(store, row, options.k, options.metric)
    rows, lines = [row, *found.rows.tolist()], []
    for rank, (neighbour, distance) in enumerate(zip(rows, [0.0, *found.distances.tolist()])):
        record = store.record(neighbour)
        lines.append((rank or "query", record["id"], record["label"] or "", record["split"] or "", f"{distance:.4f}"))
    title = f"Nearest by {options.metric} distance of standardised weights"
    console.print(_rendered(title, ("rank", "id", "label", "split", "distance"), lines))
    if options.out is not None:
        from wsrl.cli.stage import save_picture

        options.out.parent.mkdir(parents=True, exist_ok=True)
        save_picture(_strip(store, rows, [f"{line[0]}: {line[2] or line[1]}" for line in lines]), options.out)
        console.print(f"the strip, the field asked about first, is in {options.out}")


def _check_looks(store) -> None:
    """Refuse to draw what can't be seen, before anything is printed."""
    if not store.manifest["representation"]:
        raise UserError(f"{store.directory} doesn't say what its fields are", allowed="a store that `wsrl build` wrote")
    if not (store.form.is_picture or store.form.is_shape):
        raise store.field(0).without("picture", "2 coordinates to colours, or 3 to a distance")


def _strip(store, rows: list[int], titles: list[str]):
    """A row of what fields show, each under its title."""
    from wsrl.report.contact_sheet import beside, grid_sheet
    from wsrl.report.render import NORMALISED, render_mesh

    fields = [store.field(row) for row in rows]
    if store.form.is_shape:
        cells = [render_mesh(field.mesh(MESH_RESOLUTION), CELL, frame=NORMALISED) for field in fields]
    else:
        cells = [field.image(CELL) for field in fields]
    return beside([(title, grid_sheet([cell], 1, CELL)) for title, cell in zip(titles, cells)])


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


def _tables(store, num_failures: int) -> list[tuple[str, tuple[str, ...], list[tuple]]]:
    """Title, head and lines of each table."""
    from wsrl.store.card import counts_by, label_counts, metric_summary

    failures = store.failures
    counts = [("split", *line) for line in counts_by(store.splits())]
    counts += [("label", *line) for line in label_counts(store)]
    counts += [("status", *line) for line in counts_by(store.statuses())]
    metrics = [(name, *(f"{value:.6g}" for value in values)) for name, *values in metric_summary(store)]
    tensors = [
        (spec.name, "x".join(map(str, spec.shape)), spec.size, int(spec.trainable().sum())) for spec in store.layout
    ]
    tables = [
        (f"Store {store.directory}", ("what", ""), _overview(store, len(failures))),
        ("Counts", ("what", "value", "fields"), counts),
        ("Metrics", ("metric", "mean", "smallest", "largest"), metrics),
        ("Tensors of a field", ("tensor", "shape", "numbers", "trainable"), tensors),
    ]
    if failures:
        hidden = len(failures) - num_failures
        title = "Signals without a field" + (f" ({hidden} more: --failures {len(failures)})" if hidden > 0 else "")
        tables.append((title, ("id", "reason"), failures[:num_failures]))
    return [table for table in tables if table[2]]


def _overview(store, num_failures: int) -> list[tuple]:
    from wsrl.signals.passed_over import tell_passed_over
    from wsrl.store.schema import PASSED_OVER, SEGMENTS

    manifest, layout = store.manifest, store.layout
    shards = manifest["shards"]
    size = sum((store.directory / entry["file"]).stat().st_size for entry in shards)
    segments = len(list((store.directory / SEGMENTS).glob("*/segment-*.h5")))
    state = f"{len(shards)} of {manifest['num_shards']} shards" + (
        f", {segments} segments in progress" if segments else ""
    )
    lines = [
        ("source", f"{manifest['source'].get('name', '')} ({manifest['num_signals']} signals)"),
        ("state", "complete" if manifest["complete"] else f"unfinished: {state}"),
        ("fields", f"{len(store)}, {num_failures} signals without a field"),
        ("shards", f"{len(shards)}, {size / 1e6:.1f} MB"),
        ("representation", manifest["representation"].get("kind", "")),
        ("numbers per field", f"{layout.num_weights}, {layout.num_trainable} of them trainable"),
        ("base field", manifest["base_sha256"] or "none"),
        ("schema", f"{manifest['schema']} version {manifest['version']}"),
    ]
    if told := tell_passed_over(manifest.get(PASSED_OVER, {})):
        lines.append(("not read", told))
    command = manifest.get("command")
    return lines + ([("made by", command)] if command else [])
