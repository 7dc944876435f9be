"""`wsrl info DIR`: what a store holds."""

import argparse


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl info``.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="wsrl info", description="Show what a weight store holds.")
    parser.add_argument("directory", metavar="DIR", help="the store that `wsrl build` wrote, or one shard of it")
    parser.add_argument("--failures", type=int, default=20, metavar="N", help="failures to list")
    options = parser.parse_args(argv)
    from rich.console import Console

    from wsrl.store import WeightStore

    with WeightStore.open(options.directory, partial=True) as store:
        console = Console(highlight=False, soft_wrap=True)
        for title, head, lines in _tables(store, options.failures):
            console.print(_rendered(title, head, lines))
    return 0


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
    from wsrl.store.schema import SEGMENTS

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
    command = manifest.get("command")
    return lines + ([("made by", command)] if command else [])
