"""Check everything that a store says about itself: files, hashes, rows, ids, counts, the base field."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsrl.durable import file_sha256
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store import rows, schema
from wsrl.store.reader import WeightStore
from wsrl.store.shard import ShardFile
from wsrl.store.shards import id_hashes


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        file: Name of the file in the store.
        row: Row in that file, None where the whole file is concerned.
        text: What is wrong.
    """

    file: str
    row: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.text}"


@dataclass
class Report:
    """The outcome of a verification.

    Attributes:
        num_rows: Fields that were checked.
        num_failures: Recorded failures that were checked.
        problems: All that was found.
    """

    num_rows: int = 0
    num_failures: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(directory: Path | str) -> Report:
    """Read every byte of a store and compare it with its checksums.

    Memory does not grow with the size of fields; ids and source indices take 16 bytes per field.

    Args:
        directory: A finished or unfinished store.

    Returns:
        Counts and every problem found; damaged rows are named one by one.

    Raises:
        UserError: The folder is not a store, or its manifest cannot be used.
    """
    directory = Path(directory)
    manifest = schema.read_manifest(directory)
    report = Report()
    hashes: list[np.ndarray] = []
    num_shards = manifest["num_shards"]
    # Each shard that the manifest lists, and those that it should list.
    recorded = {entry["file"]: entry for entry in manifest["shards"]}
    for number in range(num_shards):
        name = schema.shard_name(number, num_shards)
        if name in recorded:
            report.problems += _check_shard(directory, manifest, number, recorded.pop(name), report, hashes)
        elif manifest["complete"]:
            report.problems.append(Problem(schema.MANIFEST, None, f"{name} is not listed though the store is complete"))
    report.problems += [Problem(schema.MANIFEST, None, f"{name} is listed but is no shard of it") for name in recorded]
    # The store as a whole: complete, ids unique, the base field that of its fields.
    if not manifest["complete"]:
        count = len(manifest["shards"])
        report.problems.append(Problem(schema.MANIFEST, None, f"unfinished: {count} of {num_shards} shards"))
    report.problems += _check_ids(hashes)
    report.problems += [*_check_base(directory, manifest), *_check_prior(directory, manifest)]
    return report


def _check_shard(
    directory: Path, manifest: dict, number: int, entry: dict, report: Report, hashes: list[np.ndarray]
) -> list[Problem]:
    """All problems of one shard; what can still be read of a damaged one is read, to name the rows."""
    name = entry["file"]
    path = directory / name
    if not path.exists():
        return [Problem(name, None, "the file is missing")]
    problems = []
    if file_sha256(path) != entry["sha256"]:
        problems.append(Problem(name, None, "the file's SHA-256 is not the one in the manifest"))
    with ShardFile(path) as shard:
        try:
            for problem in _check_content(shard, manifest, number, entry, report, hashes):
                problems.append(problem)
        except UserError as error:
            problems.append(Problem(name, None, error.wrong.removeprefix(f"{path}: ")))
    return problems


def _check_content(
    shard: ShardFile, manifest: dict, number: int, entry: dict, report: Report, hashes: list[np.ndarray]
) -> Iterator[Problem]:
    name = entry["file"]
    # The shard belongs to this store and has as many rows as the manifest says.
    difference = schema.first_difference(shard.header(), schema.shard_header(manifest, number), "attributes")
    if difference:
        yield Problem(name, None, f"{difference[0]} is not as in the manifest")
    counts = {"count": shard.count(), "failures": shard.count("failures/index")}
    for key, count in counts.items():
        if count != entry[key]:
            yield Problem(name, None, f"{key} is {count}, {entry[key]} in the manifest")
    # Every row has its checksum, and every block its fingerprint.
    layout = Layout.from_json(manifest["layout"])
    seen = [shard.column("failures/index")]
    for start, table in shard.blocks(layout):
        seen.append(table["fields/index"])
        hashes.append(id_hashes(table["fields/id"]))
        report.num_rows += len(table["fields/index"])
        wrong = rows.wrong_rows(table, layout).tolist()
        for row in wrong:
            yield Problem(name, start + row, "the row does not match its checksum")
        if not wrong and shard.agrees(start, [table[column] for column in sorted(table)]) is False:
            yield Problem(name, start, "the block that begins here does not match its fingerprint")
    # So have the failures; together they are all signals of this shard.
    failures = shard.failures()
    hashes.append(id_hashes(failures["failures/id"]))
    report.num_failures += len(failures["failures/index"])
    for row in rows.wrong_failures(failures).tolist():
        yield Problem(name, row, "the failure does not match its checksum")
    yield from _check_indices(name, np.concatenate(seen), manifest, number)


def _check_indices(name: str, seen: np.ndarray, manifest: dict, number: int) -> Iterator[Problem]:
    expected = schema.shard_range(number, manifest["num_shards"], manifest["num_signals"])
    values, counts = np.unique(seen, return_counts=True)
    missing = np.setdiff1d(np.arange(expected.start, expected.stop), values)
    foreign = np.setdiff1d(values, np.arange(expected.start, expected.stop))
    for text, indices in (("missing", missing), ("there twice", values[counts > 1]), ("of another shard", foreign)):
        if len(indices):
            listed = ", ".join(map(str, indices[:10].tolist())) + (", ..." if len(indices) > 10 else "")
            yield Problem(name, None, f"{len(indices)} source indices are {text}: {listed}")


def _check_ids(hashes: list[np.ndarray]) -> list[Problem]:
    joined = np.concatenate([np.zeros(0, dtype="<u8"), *hashes])
    twice = len(joined) - len(np.unique(joined))
    return [Problem(schema.MANIFEST, None, f"{twice} ids are not unique")] if twice else []


def _check_base(directory: Path, manifest: dict) -> list[Problem]:
    if manifest["base_sha256"] is None:
        return []
    try:
        _ = WeightStore(directory, manifest).base
    except (UserError, OSError) as error:
        text = error.wrong if isinstance(error, UserError) else str(error)
        return [Problem(schema.BASE, None, text)]
    return []


def _check_prior(directory: Path, manifest: dict) -> list[Problem]:
    if schema.PRIOR_SHA256 not in manifest:
        return []
    try:
        _ = WeightStore(directory, manifest).prior_widths
    except UserError as error:
        return [Problem(schema.PRIOR, None, error.wrong)]
    return []
