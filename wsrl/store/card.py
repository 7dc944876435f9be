"""The data card of a store: what it holds, how it was made, how to load it."""

import json

import numpy as np

from wsrl.signals.passed_over import describe_passed_over
from wsrl.store import schema
from wsrl.store.remaking import how_to_make_again


def data_card(store) -> str:
    """The card as Markdown.

    Args:
        store: An open :class:`~wsrl.store.reader.WeightStore`, possibly unfinished.
    """
    manifest = store.manifest
    title = schema.source_name(manifest) or store.directory.name
    state = "" if manifest["complete"] else " The build is not finished yet."
    parts = [
        f"# Neural fields of {title}\n",
        f"{len(store)} neural fields, one for each signal of `{title}`: data made of network weights.{state}\n",
        *_counts(store),
        *_metrics(store),
        *_representation(store),
        "## Source\n",
        _json(manifest["source"]),
        *([f"In its folder {text}.\n"] if (text := describe_passed_over(manifest.get(schema.PASSED_OVER, {}))) else []),
        *how_to_make_again(store),
        *_how(store),
    ]
    return "\n".join(parts)


def _json(value: object) -> str:
    return f"```json\n{json.dumps(value, indent=1, ensure_ascii=False)}\n```\n"


def _table(head: tuple[str, ...], lines: list[tuple]) -> str:
    written = [head, tuple("---" for _ in head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in written) + "\n"


def counts_by(names: np.ndarray) -> list[tuple[str, int]]:
    """Each distinct value with its number of occurrences, sorted by value."""
    values, counts = np.unique(names, return_counts=True)
    return [(str(name) or "(none)", int(count)) for name, count in zip(values, counts)]


def label_counts(store) -> list[tuple[str, int]]:
    """Class names with their numbers of fields."""
    labels = store.labels()
    counts = [(name, int((labels == i).sum())) for i, name in enumerate(store.label_names)]
    return counts + ([("(none)", int((labels < 0).sum()))] if (labels < 0).any() else [])


def metric_summary(store) -> list[tuple[str, float, float, float]]:
    """Name, mean, smallest and largest value of each metric over the fields that have it."""
    rows = []
    for name in store.metric_names:
        values = store.metrics(name)
        values = values[~np.isnan(values)]
        if len(values):
            rows.append((name, float(values.mean()), float(values.min()), float(values.max())))
    return rows


def overview_tables(store, num_failures: int = 20) -> list[tuple[str, tuple[str, ...], list[tuple]]]:
    """What a store holds as tables: title, head and lines of each.

    Args:
        store: An open store, possibly unfinished.
        num_failures: Signals without a field that are listed.
    """
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
        ("Tensors of a field", ("tensor", "shape", "parameters", "trainable"), tensors),
    ]
    if failures:
        hidden = len(failures) - num_failures
        title = "Signals without a field" + (f" ({hidden} more: --failures {len(failures)})" if hidden > 0 else "")
        tables.append((title, ("id", "reason"), failures[:num_failures]))
    return [table for table in tables if table[2]]


def _overview(store, num_failures: int) -> list[tuple]:
    manifest, layout = store.manifest, store.layout
    shards = manifest["shards"]
    size = sum((store.directory / entry["file"]).stat().st_size for entry in shards)
    segments = len(list((store.directory / schema.SEGMENTS).glob("*/segment-*.h5")))
    state = f"{len(shards)} of {manifest['num_shards']} shards" + (
        f", {segments} segments in progress" if segments else ""
    )
    lines = [
        ("source", f"{schema.source_name(manifest) or ''} ({manifest['num_signals']} signals)"),
        ("state", "complete" if manifest["complete"] else f"unfinished: {state}"),
        ("fields", f"{len(store)}, {num_failures} signals without a field"),
        ("shards", f"{len(shards)}, {size / 1e6:.1f} MB"),
        ("representation", manifest["representation"].get("kind", "")),
        ("parameters of a field", f"{layout.num_weights}, {layout.num_trainable} of them trainable"),
        ("base field", manifest["base_sha256"] or "none"),
        ("schema", f"{manifest['schema']} version {manifest['version']}"),
    ]
    if text := describe_passed_over(manifest.get(schema.PASSED_OVER, {})):
        lines.append(("not read", text))
    command = manifest.get("command")
    return lines + ([("made by", command)] if command else [])


def _counts(store) -> list[str]:
    lines = [("split", name, count) for name, count in counts_by(store.splits())]
    lines += [("label", name, count) for name, count in label_counts(store)]
    lines += [("status", name, count) for name, count in counts_by(store.statuses())]
    parts = ["## Counts\n", _table(("what", "value", "fields"), lines)]
    failures = store.failures
    if failures:
        shown = [(name, reason.replace("|", "\\|")) for name, reason in failures[:50]]
        parts += [f"{len(failures)} signals have no field:\n", _table(("id", "reason"), shown)]
        parts += [f"and {len(failures) - 50} more.\n"] if len(failures) > 50 else []
    return parts


def _metrics(store) -> list[str]:
    lines = [(name, *(f"{value:.6g}" for value in values)) for name, *values in metric_summary(store)]
    return ["## Quality of the fits\n", _table(("metric", "mean", "smallest", "largest"), lines)] if lines else []


def _representation(store) -> list[str]:
    lines = [(spec.name, "x".join(map(str, spec.shape)), spec.size) for spec in store.layout]
    layout = store.layout
    return [
        "## Representation\n",
        f"{layout.num_trainable} trainable parameters of {layout.num_weights} stored ones per field.\n",
        *([f"{sizes}\n"] if (sizes := store.manifest.get(schema.SIZES)) else []),
        _table(("tensor", "shape", "parameters"), lines),
        _json(store.manifest["representation"]),
        "Fitting:\n",
        _json(store.manifest["fit"]),
    ]


def _how(store) -> list[str]:
    example = store.id_of(0) if len(store) else "some/id"
    code = [
        "```python",
        "from wsrl import WeightStore",
        "",
        'store = WeightStore.open("path/to/this/folder")',
        f"weights = store[{example!r}]  # dict of tensors, one field",
        f"field = store.field({example!r})  # coordinates (P, D) in [-1, 1] to values (P, C)",
        "for batch in store.batches(256, shuffle=True):",
        "    batch.weights, batch.labels, batch.ids, batch.metrics",
        "```\n",
    ]
    return ["## How to load it\n", *code]
