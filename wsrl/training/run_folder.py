"""What is in the folder of a training run already: nothing, a run to go on with, a finished one, or another one.

A run is another one where an option that decides the model differs: of the task, the data or the seed. How long it is
trained, on what, and what is shown may differ, and a longer run goes on from a shorter one.
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.progress import ShowProgress, say, silent
from wsrl.provenance import METRICS_FILE, dotted, recorded_run

DECIDING_OPTIONS = ("precision", "gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
"""Options of the trainer that decide the model; those of the task and the seed all do."""
LENGTHS = ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches", "overfit_batches")
SPEED_OF_DATA = ("store", "num_workers", "cache_mb")
"""Options of the data that leave the model as it is; the store counts by its content."""
RAW_GAUGE = ("gauge", RAW)
LAST = "last"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What the folder of a run holds for this one.

    Attributes:
        finished: Metrics of the same run where it is finished; None where there is something to do.
        checkpoint: Where to go on; None for the beginning.
    """

    finished: dict[str, float] | None = None
    checkpoint: Path | None = None


def look_into(root: Path, task: str, config: dict[str, Any], store_hash: str | None, checkpoints: Path) -> RunState:
    """Find out what a run in ``root`` starts from.

    Args:
        root: Folder of the run.
        task: A key of ``wsrl.training.run.TASKS``.
        config: The resolved configuration.
        store_hash: Hash of the store's manifest.
        checkpoints: Folder of the checkpoints.

    Raises:
        UserError: The folder holds the run of another model.
    """
    record, last = recorded_run(root), newest_checkpoint(checkpoints)
    model = Path(config["model"].get("export_dir") or root) / "model"
    if last is None and not model.exists():
        return RunState()
    if not record:  # nothing is known of what the checkpoints belong to: go on from them where that is asked for
        return RunState(checkpoint=last if config.get("ckpt_path") == LAST else None)
    difference = _difference(record, task, config, store_hash)
    if difference is not None:
        raise UserError(
            f"{root} belongs to another model: {difference}",
            allowed="the options, the store and the seed of the run that is there, to go on with it",
            do="choose another --trainer.default_root_dir, or remove that folder",
        )
    metrics = root / METRICS_FILE
    if record.get("results") and metrics.is_file() and model.exists() and not _is_longer(record, config):
        kept = json.loads(metrics.read_text())
        return RunState(finished={name: value for name, value in kept.items() if name != "elapsed_s"})
    return RunState(checkpoint=last)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest ``last*.ckpt`` by time, or the newest of all where there is none; None without any.

    Lightning gives the last checkpoint of a second run into the same folder another name, ``last-v1.ckpt``.
    """
    for pattern in ("last*.ckpt", "*.ckpt"):
        files = [path for path in folder.glob(pattern) if path.is_file()]
        if files:
            return max(files, key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name))
    return None


def checkpoint_to_resume(asked: str | None, state: RunState, progress: ShowProgress = silent) -> str | None:
    """The path of a readable checkpoint to go on from.

    Args:
        asked: The checkpoint that was asked for; ``last`` or None is the newest one of this run, if it has any.
        state: What the folder of the run holds.
        progress: Told what is gone on from.
    """
    path = state.checkpoint
    if asked not in (None, LAST):
        path = Path(asked)
    elif path is not None:
        say(progress, f"an earlier run is there: going on from {path}")
    else:
        if asked == LAST:
            say(progress, "no checkpoint yet: training starts from the beginning")
        return None
    check_checkpoint(path)
    return str(path)


def check_checkpoint(path: Path) -> None:
    """Refuse a file that Lightning could not resume from.

    Raises:
        UserError: The file is missing, damaged, or something else.
    """
    allowed = "a .ckpt file written by wsrl train, or last"
    do = "choose another checkpoint, or leave out --ckpt_path to start from the beginning"
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", allowed=allowed, do=do)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the checkpoint {path} cannot be read: {reason}", allowed=allowed, do=do) from error
    if not isinstance(content, dict) or "state_dict" not in content or "loops" not in content:
        raise UserError(f"{path} is not a checkpoint of a training run", allowed=allowed, do=do)


def _difference(record: dict, task: str, config: dict[str, Any], store_hash: str | None) -> str | None:
    """The first deciding option that differs from the record of a run, in words."""
    words = str(record.get("command", "")).split()
    if words[:2] != ["wsrl", "train"]:
        return f"it holds a run of {' '.join(words[:2]) or 'another command'}"
    if words[2:3] != [task]:
        return f"it holds a run of wsrl train {words[2] if words[2:] else ''}".rstrip()
    there, here = _deciding(record.get("config") or {}), _deciding(config)
    for name in {**there, **here}:  # what is None is left out of a record
        if there.get(name) != here.get(name):
            return f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
    before = ((record.get("inputs") or {}).get("store") or {}).get("sha256")
    if before is not None and store_hash is not None and before != store_hash:
        return "it was trained on other fields than the store holds"
    return None


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """Options that decide the model, by dotted name."""
    parts = {
        "model": {k: v for k, v in config.get("model", {}).items() if k != "export_dir"},
        # records from before there was a gauge do not name it
        "data": {k: v for k, v in config.get("data", {}).items() if k not in SPEED_OF_DATA and (k, v) != RAW_GAUGE},
        "trainer": {k: v for k, v in config.get("trainer", {}).items() if k in DECIDING_OPTIONS},
    }
    options = {"seed_everything": config.get("seed_everything")}
    for name, values in parts.items():
        options |= dotted(name, values)
    return options


def _is_longer(record: dict, config: dict[str, Any]) -> bool:
    """Whether a run is longer than the one that was finished."""
    before, now = (record.get("config") or {}).get("trainer", {}), config["trainer"]
    if {name: before.get(name) for name in LENGTHS} == {name: now.get(name) for name in LENGTHS}:
        return False
    return not _is_less(now.get("max_epochs"), before.get("max_epochs")) or not _is_less(
        now.get("max_steps"), before.get("max_steps")
    )


def _is_less(length: int | None, other: int | None) -> bool:
    """Whether a length is at most another; -1 and None stand for no end."""
    if other in (None, -1):
        return True
    return length not in (None, -1) and length <= other
