"""LightningCLI with the defaults of this project: where a run is kept, what it logs, how it is resumed."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from wsrl.progress import ShowProgress
from wsrl.training.step_progress import TrainingProgress


class TrainCLI(LightningCLI):
    """LightningCLI for tasks over weights.

    A run lives in ``trainer.default_root_dir``: ``checkpoints/`` (best and last), ``csv/`` and ``tensorboard/``.

    Args:
        *args: As for LightningCLI.
        monitor: Defaults of the checkpoint callback: ``monitor`` and ``mode``.
        root: Default folder of the run.
        task: What is trained; the command is ``wsrl train <task>``.
        progress: Shows the steps.
        **kwargs: As for LightningCLI.
    """

    def __init__(
        self, *args: Any, monitor: dict[str, Any], root: str, task: str, progress: ShowProgress, **kwargs: Any
    ):
        self._monitor, self._task, self._progress = monitor, task, progress
        super().__init__(
            *args,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"default_root_dir": root, "max_epochs": 100, "deterministic": True},
            parser_kwargs={"prog": f"wsrl train {task}", "exit_on_error": False, "allow_abbrev": False},
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
        """Check arguments of the command line or plain values, and keep checkpoints under the folder of the run."""
        self.config = parser.parse_object(args) if isinstance(args, dict) else parser.parse_args(args)
        if self.config.checkpoint.dirpath is None:
            self.config.checkpoint.dirpath = str(Path(self.config.trainer.default_root_dir) / "checkpoints")
        if not self.config.data.val_fraction:
            self.config.checkpoint.monitor = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer, with a CSV and a TensorBoard logger and one bar over all steps, unless others were asked for."""
        config = self.config_init.trainer
        root = Path(config.default_root_dir)
        if config.logger is None or config.logger is True:
            kwargs["logger"] = [
                CSVLogger(root, name="", version="csv"),
                TensorBoardLogger(root, name="", version="tensorboard"),
            ]
        callbacks = config.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if config.enable_progress_bar is not True and not any(isinstance(one, ProgressBar) for one in callbacks):
            kwargs["enable_progress_bar"] = False
            callbacks = [*callbacks, TrainingProgress(self._progress, self._task)]
        kwargs["callbacks"] = callbacks
        kwargs["enable_model_summary"] = bool(config.enable_model_summary)
        return super().instantiate_trainer(**kwargs)


class ParsedCLI(TrainCLI):
    """Parses the arguments and makes nothing."""

    def instantiate_classes(self) -> None:
        """Leave the classes alone."""
