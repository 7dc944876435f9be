"""Prepared shapes on the disk: one HDF5 file each, named by what went into it.

A file appears complete or not at all; a damaged one is as good as none.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from wsrl.durable import disk_errors, write_bytes
from wsrl.signals.shapes.shape import PreparedShape

METHOD_VERSION = 5
ARRAYS = ("points", "distances", "surface", "normals", "heldout_points", "heldout_distances", "center")
FACTS = ("scale", "quality", "verdict", "reasons")


def cache_key(content: bytes, sampling: Mapping[str, object], seed: int) -> str:
    """Name of a prepared shape: the hash of all that determines it."""
    settings = json.dumps({"sampling": sampling, "seed": seed, "version": METHOD_VERSION}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(content).digest() + settings.encode()).hexdigest()


def cache_path(directory: str | Path, key: str) -> Path:
    """File of a key; 256 sub-folders keep listings short."""
    return Path(directory) / key[:2] / f"{key}.h5"


def load_prepared(path: Path) -> PreparedShape | None:
    """Read a prepared shape; None where there is none or the file is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            facts_text = file.attrs["facts"]
            arrays = {name: file[name][()] for name in ARRAYS}
            if file.attrs["sha256"] != digest(arrays, facts_text):
                return None
            facts = json.loads(facts_text)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError):  # what h5py raises on damage
        return None
    return PreparedShape(**arrays, **(facts | {"reasons": tuple(facts["reasons"])}))


def save_prepared(path: Path, prepared: PreparedShape) -> None:
    """Write a prepared shape, also a rejected one, so that it appears complete or not at all.

    Raises:
        UserError: The disk refuses.
    """
    arrays = {name: np.ascontiguousarray(getattr(prepared, name)) for name in ARRAYS}
    facts_text = json.dumps({name: getattr(prepared, name) for name in FACTS})
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs["facts"] = facts_text
        file.attrs["sha256"] = digest(arrays, facts_text)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def digest(arrays: Mapping[str, np.ndarray], facts_text: str) -> str:
    """Hash of all that is kept: the arrays by name, and the other facts as JSON."""
    total = hashlib.sha256(facts_text.encode())
    for name in ARRAYS:
        total.update(f"{name}{arrays[name].shape}{arrays[name].dtype.str}".encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()
