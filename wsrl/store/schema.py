"""What a store directory contains: names of files, the manifest, and who owns which signals."""

import json
from pathlib import Path

from wsrl.durable import write_bytes
from wsrl.errors import UserError
from wsrl.signals.form import SignalForm

SCHEMA = "wsrl-store"
VERSION = 2  # 1: without the form of the signals
MANIFEST = "manifest.json"
LOCK = ".lock"
SEGMENTS = "segments"
BASE = "base"
CARD = "README.md"
PRIOR, PRIOR_SHA256 = "prior.safetensors", "prior_sha256"
# Options of a fit that are newer than stores that exist, with what those stores were fitted with.
LATER_FIT = {"prior_strength": 0.0, "prior_scale": "start", "interleave_by": "place"}
PASSED_OVER = "passed_over"
SIZES = "sizes"
FORM = "signal_form"
ENVIRONMENTS = "environments"
FIELDS_PER_SHARD = 8192
# The keys that make two builds the same; each shard repeats those that are needed to read it alone.
BUILD_KEYS = (
    "representation",
    "layout",
    "base_sha256",
    "source",
    FORM,
    "fit",
    "num_signals",
    "num_shards",
    "label_names",
)


def shard_name(shard: int, num_shards: int) -> str:
    """File name of a finished shard."""
    return f"shard-{shard:05d}-of-{num_shards:05d}.h5"


def shard_range(shard: int, num_shards: int, num_signals: int) -> range:
    """Source indices that belong to a shard: contiguous, and equal in number up to one."""
    return range(shard * num_signals // num_shards, (shard + 1) * num_signals // num_shards)


def check_version(header: dict, path: Path) -> None:
    """Refuse what is not a store or was written by a later version.

    Args:
        header: The keys ``schema`` and ``version`` of a manifest or of a shard.
        path: Where they come from.

    Raises:
        UserError: The schema is another one, or newer.
    """
    if header.get("schema") != SCHEMA or not isinstance(header.get("version"), int):
        raise UserError(
            f"{path} is not part of a wsrl store: its schema is {header.get('schema')!r}",
            allowed=f"schema {SCHEMA!r}",
            do="give the folder that `wsrl build` wrote",
        )
    if header["version"] > VERSION:
        raise UserError(
            f"{path} has schema version {header['version']}, newer than this wsrl can read",
            allowed=f"versions up to {VERSION}",
            do="update wsrl",
        )


def read_manifest(directory: Path) -> dict:
    """The manifest of a store.

    Raises:
        UserError: There is none, it cannot be parsed, lacks keys, or is newer than this library.
    """
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{directory} is not a weight store: it has no {MANIFEST}",
            allowed="a folder written by `wsrl build`",
            do="check the path, or build the store first",
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read: {error}", allowed="JSON", do="restore the file, or build the store again"
        ) from None
    if not isinstance(manifest, dict):
        raise UserError(f"{path} is not a JSON object", allowed="a manifest", do="build the store again")
    check_version(manifest, path)
    manifest = with_form(manifest)
    missing = [key for key in (*BUILD_KEYS, "shards", "complete") if key not in manifest]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}", allowed="a complete manifest", do="build the store again")
    return manifest


def with_form(manifest: dict) -> dict:
    """A manifest or the header of a shard, with the form of its signals: schema 1 does not have it."""
    known = {"source", "representation"} <= manifest.keys()
    if FORM in manifest or not known:
        return manifest
    return manifest | {FORM: SignalForm.from_description(manifest["source"], manifest["representation"]).to_json()}


def write_manifest(directory: Path, manifest: dict) -> None:
    """Replace the manifest atomically; bytes of names that are no UTF-8 are escaped, and read back as they were."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, default=str)
    write_bytes(Path(directory) / MANIFEST, (text + "\n").encode("utf-8", "backslashreplace"))


def source_name(manifest: dict) -> str | None:
    """Name of the source that a store was made from; a folder's where it was none of ours."""
    return manifest["source"].get("name")


def source_options(manifest: dict) -> dict:
    """The options with which the source was opened, None left out; paths are not among them."""
    return {key: value for key, value in manifest["source"].get("options", {}).items() if value is not None}


def is_imported(manifest: dict) -> bool:
    """Whether the fields were fitted elsewhere, so that no signals are known."""
    return "imported" in manifest["source"]


def shard_header(manifest: dict, shard: int) -> dict:
    """What a shard repeats of the manifest so that it can be read alone."""
    keys = ("schema", "version", *BUILD_KEYS)
    return {key: manifest[key] for key in keys} | {"shard": shard}


def first_difference(there: object, asked: object, name: str) -> tuple[str, object, object] | None:
    """The first dotted key at which two JSON values differ, with both values; None where they are equal."""
    if there == asked:
        return None
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in sorted(there.keys() | asked.keys()):
            difference = first_difference(there.get(key), asked.get(key), f"{name}.{key}")
            if difference:
                return difference
        return None  # a key that one of them lacks is None in the other: an option that is newer than the store
    return name, there, asked
