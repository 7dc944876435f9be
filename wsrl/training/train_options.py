"""The options of a training as typed values, grouped by the class that takes them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wsrl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained on what, for how long, and where it is kept; what is left out has the default of its class.

    Attributes:
        store: The weights.
        out: Folder of the run: ``model/``, ``checkpoints/``, logs, ``metrics.json`` and ``run.json``.
        model: Options of the task's LightningModule, such as ``{"width": 128}``.
        data: Options of ``WeightDataModule``, such as ``{"batch_size": 64}``.
        trainer: Options of Lightning's ``Trainer``, such as ``{"max_epochs": 20}``.
        checkpoint: Options of Lightning's ``ModelCheckpoint``.
        seed: Seed of all that is drawn.
        ckpt_path: Checkpoint to go on from; ``last`` or None for the newest one of an earlier run in ``out``.
    """

    store: str | os.PathLike
    out: str | os.PathLike
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    ckpt_path: str | None = None

    def changed(self, options: Mapping[str, Any]) -> "TrainOptions":
        """These options with others by dotted name, such as ``{"trainer.max_epochs": 20}``.

        Raises:
            UserError: A name has none of the groups before its dot.
        """
        groups = {name: dict(getattr(self, name)) for name in ("model", "data", "trainer", "checkpoint")}
        for name, value in options.items():
            group, dot, key = name.partition(".")
            if not dot or group not in groups:
                raise UserError(
                    f"{name!r} is no option of a training",
                    allowed=f"names that begin with {', '.join(f'{group}.' for group in groups)}",
                    do="see wsrl train TASK --help",
                )
            _put(groups[group], key, value)
        return replace(self, **groups)

    def nested(self) -> dict[str, Any]:
        """The options as LightningCLI groups them."""
        return {
            "seed_everything": self.seed,
            "model": dict(self.model),
            "data": {"store": str(self.store), **self.data},
            "trainer": {"default_root_dir": str(self.out), **self.trainer},
            "checkpoint": dict(self.checkpoint),
            "ckpt_path": self.ckpt_path,
        }


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set an option, whose name may go on after a dot."""
    head, dot, rest = key.partition(".")
    if dot:
        values[head] = dict(values.get(head) or {})
        _put(values[head], rest, value)
    else:
        values[head] = value
