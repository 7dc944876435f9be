"""Lightning's command line with the defaults of this project: where a run is kept, what it logs, how it is resumed."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


class PlainProgress(L.Callback):
    """One line of progress now and then, for output that is not a terminal.

    Args:
        every_s: Shortest time between two lines, in seconds.
    """

    def __init__(self, every_s: float = 10.0):
        self.every_s, self._last, self._started = every_s, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._started = self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say the epoch, the metrics, and the time that is left where the number of epochs is known."""
        now, done = time.monotonic(), trainer.current_epoch + 1
        is_last = done == trainer.max_epochs
        if now - self._last < self.every_s and not is_last:
            return
        self._last = now
        metrics = "  ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
        print(f"epoch {done}/{trainer.max_epochs}  {now - self._started:.0f} s  {metrics}", file=sys.stderr, flush=True)


class TrainCLI(LightningCLI):
    """LightningCLI for tasks over weights.

    A run lives in ``trainer.default_root_dir``: ``checkpoints/`` (best and last), ``csv/`` and ``tensorboard/``.

    Args:
        *args: As for LightningCLI.
        monitor: Defaults of the checkpoint callback: ``monitor`` and ``mode``.
        root: Default folder of the run.
        prog: Name of the command in messages.
        **kwargs: As for LightningCLI.
    """

    def __init__(self, *args: Any, monitor: dict[str, Any], root: str, prog: str, **kwargs: Any):
        self._monitor = monitor
        super().__init__(
            *args,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"default_root_dir": root, "max_epochs": 100, "deterministic": True},
            parser_kwargs={"prog": prog, "exit_on_error": False, "allow_abbrev": False},
            auto_configure_optimizers=False,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--checkpoint.*`` and ``--ckpt_path``."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        defaults = {"save_last": True, "save_top_k": 1, **self._monitor}
        parser.set_defaults({f"checkpoint.{name}": value for name, value in defaults.items()})
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="checkpoint to resume from; `last`, or nothing, for the newest one",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments that were passed on, and put what is kept under the folder of the run."""
        self.config = parser.parse_args(args)
        if self.config.checkpoint.dirpath is None:
            self.config.checkpoint.dirpath = str(Path(self.config.trainer.default_root_dir) / "checkpoints")
        if not self.config.data.val_fraction:
            self.config.checkpoint.monitor = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer, with a CSV and a TensorBoard logger unless others were asked for."""
        config = self.config_init.trainer
        root = Path(config.default_root_dir)
        if config.logger is None or config.logger is True:
            kwargs["logger"] = [
                CSVLogger(root, name="", version="csv"),
                TensorBoardLogger(root, name="", version="tensorboard"),
            ]
        if not sys.stderr.isatty() and config.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = False
            kwargs["enable_model_summary"] = bool(config.enable_model_summary)
        if not sys.stderr.isatty() or config.enable_progress_bar is False:
            given = config.callbacks or []
            kwargs["callbacks"] = [*(given if isinstance(given, list) else [given]), PlainProgress()]
        return super().instantiate_trainer(**kwargs)


class ParsedCLI(TrainCLI):
    """Parses the arguments and makes nothing."""

    def instantiate_classes(self) -> None:
        """Leave the classes alone."""
