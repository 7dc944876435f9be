"""``wsrl data prepare`` for shapes: fill the cache of prepared shapes and say how each came out."""

import csv
import io
import re
import statistics
import sys
from collections import Counter

NUMBER = re.compile(r"\d[\d,.]*%?")
COLUMNS = ("id", "label", "split", "verdict", "reasons", "seconds", "num_faces", "num_parts", "watertight")


def prepare_shapes(source, processes: int | None) -> list:
    """Prepare all shapes of a source.

    Args:
        source: The opened source.
        processes: Processes that work at one time; None for one per core.

    Returns:
        A record for each shape, in order.
    """
    import os

    from wsrl.cli.display import show_progress

    with show_progress("shapes prepared", len(source)) as shown:
        source.prepare(range(len(source)), processes or os.cpu_count() or 1, shown.advance)
    return [source.record(index) for index in range(len(source))]


def shape_index(source, records: list) -> str:
    """A table of the shapes as comma-separated values.

    Args:
        source: The opened source.
        records: A record for each shape.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record, label, split in zip(records, source.labels(), source.splits(), strict=True):
        row = {"id": record.id, "label": label or "", "split": split or "", "verdict": record.verdict}
        known = {name: f"{record.quality[name]:.6g}" for name in COLUMNS if name in record.quality}
        writer.writerow(row | {"reasons": "; ".join(record.reasons)} | known)
    return text.getvalue()


def tell_shapes(source, records: list) -> int:
    """Print how many shapes came out how, and which were rejected and why.

    Args:
        source: The opened source.
        records: A record for each shape.

    Returns:
        Exit status: 1 where some were rejected.
    """
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
    """How many shapes have each reason, whatever its numbers.

    Args:
        records: A record for each shape.
        verdict: The verdict whose reasons are counted.
    """
    chosen = [record for record in records if record.verdict == verdict]
    return Counter(kind for record in chosen for kind in {NUMBER.sub("N", reason) for reason in record.reasons})
