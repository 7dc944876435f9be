"""``run.json``: what a run was made from, written before its first step and completed after its last.

Also the atomic writing of JSON files that the rest of the library uses.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import wsrl
from wsrl.durable import disk_errors, file_sha256, text_sha256, write_bytes
from wsrl.errors import UserError

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
PACKAGES = ("torch", "numpy", "peft", "diffusers", "lightning", "h5py", "pillow", "scikit-learn", "jsonargparse")


def write_json_atomic(path: Path | str, obj: object) -> None:
    """Replace a JSON file at once: a reader or a killed process sees the old text or the new one, never a part.

    Args:
        path: File to write; its folder is created where it is missing.
        obj: Plain data; numbers of numpy and torch, paths and tuples are turned into plain ones.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(obj, indent=2, default=_plain, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def write_run(
    directory: Path | str,
    command: str,
    config: Mapping[str, object],
    *,
    inputs: Mapping[str, Path | str] | None = None,
    seed: int | None = None,
) -> Path:
    """Write ``run.json`` before the first step of a run.

    Args:
        directory: Folder of the run.
        command: The stage and its arguments, as typed.
        config: The resolved configuration.
        inputs: Files or folders that the run reads, by name; their hashes are recorded (see :func:`hash_input`).
        seed: Seed of the run.

    Returns:
        Path of the file.
    """
    record = {
        "command": command,
        "config": dict(config),
        "seed": seed,
        "inputs": {name: {"path": str(path), "sha256": hash_input(path)} for name, path in (inputs or {}).items()},
        **environment(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "started_s": time.time(),
        "elapsed_s": None,
    }
    path = Path(directory) / RUN_FILE
    write_json_atomic(path, record)
    return path


def finish_run(directory: Path | str, **results: object) -> dict:
    """Complete ``run.json`` with the elapsed seconds and what came out.

    Args:
        directory: Folder given to :func:`write_run`.
        **results: Plain values to keep under ``results``.

    Returns:
        The completed record.
    """
    path = Path(directory) / RUN_FILE
    record = json.loads(path.read_text(encoding="utf-8"))
    record["elapsed_s"] = round(time.time() - record["started_s"], 3)
    record["results"] = results
    write_json_atomic(path, record)
    return record


def recorded_run(out: Path) -> dict:
    """The record of the run in a folder; empty where there is none that can be read."""
    try:
        record = json.loads((out / RUN_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def same_config(out: Path, config: Mapping[str, object]) -> bool:
    """Whether the run recorded in ``out`` had this configuration."""
    recorded = recorded_run(out).get("config")
    return recorded is not None and recorded == json.loads(json.dumps(config))


def claim_folder(out: Path, ours: tuple[str, ...], command: str | None = None) -> None:
    """Make the output folder, or refuse one that holds something else.

    Args:
        out: The folder.
        ours: Names of which at least one is in a folder that such a run wrote.
        command: The command whose record, if there is one, the folder may hold; None for any.

    Raises:
        UserError: The folder is not empty and not ours, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", allowed="a new folder, or one of an earlier run", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    inside = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]
    if inside and not any(name in inside for name in ours):
        raise UserError(
            f"the output folder {out} is not ours: it holds {sorted(inside)[0]!r}",
            allowed="a new or empty folder, or one of an earlier run of this command",
            do="choose another --out",
        )
    recorded = recorded_run(out).get("command", "") if command else ""
    if recorded and not recorded.startswith(f"wsrl {command}"):
        raise UserError(
            f"the output folder {out} is not ours: it holds the run `{recorded}`",
            allowed=f"a new or empty folder, or one of an earlier wsrl {command}",
            do="choose another --out",
        )


def merge_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Add metrics to a file, keeping the other keys that are there.

    Raises:
        UserError: The file is there and holds something else.
    """
    there = {}
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {error}", do="choose another file with --out") from error
        if not isinstance(there, dict):
            raise UserError(f"{path} is not a JSON object", do="choose another file with --out")
    write_json_atomic(path, there | dict(metrics))


def dotted(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    """Leaves of nested values by dotted name; lists and tuples stay whole."""
    leaves: dict[str, object] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        leaves |= dotted(key, value) if isinstance(value, dict) else {key: value}
    return leaves


def code_state() -> dict[str, object]:
    """Commit of the checkout that the package is imported from and whether it was changed; None outside one."""
    root = Path(wsrl.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if status is None else bool(status)}


def environment() -> dict[str, object]:
    """The code, the libraries and the machine that results come from; nothing in it changes while they do not."""
    return {**code_state(), "versions": versions(), "machine": machine()}


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of the libraries that decide results."""
    known: dict[str, str | None] = {"python": platform.python_version(), "wsrl": wsrl.__version__}
    for package in PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = None
    return known


def machine() -> dict[str, object]:
    """Processor, cores this process may use, threads, accelerator and operating system."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "system": platform.platform(),
    }


def hash_input(path: Path | str) -> str | None:
    """SHA-256 of what a run reads.

    A file is hashed whole. A folder with a ``manifest.json`` or ``config.json`` is named by that file, which holds the
    hashes of the rest or sits beside the weights that are hashed with it; any other folder by its sorted file names
    and sizes. None for a path that does not exist (a named source).
    """
    path = Path(path)
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        return None
    if (path / "manifest.json").is_file():
        return file_sha256(path / "manifest.json")
    if (path / "config.json").is_file():
        return file_sha256(path / "config.json", *sorted(path.glob("*.safetensors")))
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return text_sha256(*(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}" for file in files), "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy and torch numbers and arrays
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data and cannot be written as JSON")
