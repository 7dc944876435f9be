"""Train a model over the weights in a store: fit, test on the test split where there is one, and export.

Given again, a run goes on with what is in its folder, keeps a finished model, and refuses the folder of another one.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from wsrl import native
from wsrl.errors import UserError
from wsrl.progress import ShowProgress, say, silent
from wsrl.provenance import METRICS_FILE, RUN_FILE, finish_run, hash_input, write_json_atomic, write_run
from wsrl.training.encoder_task import WeightTask
from wsrl.training.lightning_cli import ParsedCLI, TrainCLI
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.run_folder import LAST, RunState, checkpoint_to_resume, look_into
from wsrl.training.train_options import TrainOptions
from wsrl.training.weight_data import WeightDataModule


def _classifier() -> tuple[type, dict[str, Any]]:
    from wsrl.training.classifier import ClassifierTask

    return ClassifierTask, {"monitor": "val_loss", "mode": "min"}


def _regressor() -> tuple[type, dict[str, Any]]:
    from wsrl.training.regressor import RegressorTask

    return RegressorTask, {"monitor": "val_loss", "mode": "min"}


def _autoencoder() -> tuple[type, dict[str, Any]]:
    from wsrl.training.autoencoder_task import AutoencoderTask

    return AutoencoderTask, {"monitor": None}


def _diffusion() -> tuple[type, dict[str, Any]]:
    from wsrl.training.diffusion import DiffusionTask

    return DiffusionTask, {"monitor": None}


TASKS: dict[str, Callable[[], tuple[type, dict[str, Any]]]] = {
    "classifier": _classifier,
    "regressor": _regressor,
    "autoencoder": _autoencoder,
    "diffusion": _diffusion,
}
"""For each task its LightningModule, and what its best checkpoint is chosen by."""
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions of the trainer in which the tasks train, as Lightning names them."""
_PRECISION_ALIASES = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
SAVE_THEMSELVES = ("autoencoder", "diffusion")
"""Tasks that write their model at the end of training, with averaged parameters."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel(os.PathLike):
    """A model that was trained; the path to it wherever one is asked for.

    Attributes:
        folder: Folder of the run; the model is in its ``model/``.
        metrics: Validation and test metrics under dotted keys, ``<task>.<metric>``.
    """

    folder: Path
    metrics: dict[str, float]

    def __fspath__(self) -> str:
        return str(self.folder / "model")


def train(task: str, options: TrainOptions, *, progress: ShowProgress = silent) -> TrainedModel:
    """Fit, test and export one model, or keep the one that an equal run left.

    Args:
        task: A key of ``TASKS``.
        options: What is trained on what.
        progress: Shows the steps.

    Raises:
        UserError: A wrong option, a missing device, or a checkpoint that cannot be used.
    """
    return train_with(task, options.nested(), command=f"wsrl train {task}", progress=progress)


def train_with(
    task: str, options: dict[str, Any] | Sequence[str], *, command: str, progress: ShowProgress = silent
) -> TrainedModel:
    """What :func:`train` does, with whatever LightningCLI reads.

    Args:
        task: A key of ``TASKS``.
        options: Options of LightningCLI, nested, or words of a command line.
        command: What is recorded as the command; begins with ``wsrl train <task>``.
        progress: Shows the steps.
    """
    started = time.perf_counter()
    native.keep_freed_memory()
    with quiet_lightning():
        cli = assembled(TrainCLI, task, options, progress)
        check_precision(cli.trainer.precision)
        root = Path(cli.trainer.default_root_dir)
        # A finished run is kept; another one's folder is refused.
        state = _look_into(cli, task, root)
        if state.finished is not None:
            say(progress, f"{root} already holds this model, which is kept; remove it to train anew")
            return TrainedModel(folder=root, metrics=state.finished)
        # The record is written before the first step, the metrics after the last.
        checkpoint = checkpoint_to_resume(cli.config.get("ckpt_path"), state, progress)
        _record(cli, command, root)
        _run(cli, lambda: cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint), progress)
        metrics = {f"{task}.{name}": value for name, value in _metrics(cli, progress).items()}
    if cli.trainer.is_global_zero and not cli.trainer.fast_dev_run:
        if task not in SAVE_THEMSELVES:
            cli.model.export(root / "model")
        write_json_atomic(root / METRICS_FILE, {**metrics, "elapsed_s": time.perf_counter() - started})
        finish_run(root, **metrics)
        say(progress, f"model: {root / 'model'}")
    return TrainedModel(folder=root, metrics=metrics)


def check_options(task: str, options: TrainOptions) -> None:
    """Refuse the options that :func:`train` would refuse, without a store and before anything is made.

    Raises:
        UserError: An unknown option or a wrong type.
    """
    with quiet_lightning():
        cli = assembled(ParsedCLI, task, options.nested() | {"seed_everything": False}, silent)
    check_precision(cli.config.trainer.precision)


def check_precision(precision: object) -> None:
    """Refuse a precision in which the parameters themselves are of another type than float32.

    Args:
        precision: Value of ``--trainer.precision``, or that of a trainer.

    Raises:
        UserError: Weights, their statistics and the moving average of a model are kept in float32.
    """
    if _PRECISION_ALIASES.get(str(precision), str(precision)) not in PRECISIONS:
        raise UserError(
            f"trainer.precision is {precision}: weights, their statistics and averages of models are kept in float32",
            allowed=", ".join(PRECISIONS),
            do="choose bf16-mixed, which computes in bfloat16 and keeps the parameters",
        )


def assembled(cli: type[TrainCLI], task: str, options: dict[str, Any] | Sequence[str], progress: ShowProgress):
    """Trainer, model and data of a run; what Lightning refuses becomes what the user can act on."""
    model_class, monitor = TASKS[task]()
    try:
        return cli(
            model_class,
            WeightDataModule,
            run=False,
            args=options if isinstance(options, dict) else list(options),
            monitor=monitor,
            root=f"runs/{task}",
            task=task,
            progress=progress,
        )
    except (ArgumentError, UnicodeDecodeError) as error:  # the latter from a configuration that is no text
        raise UserError(
            " ".join(str(error).split()),
            allowed=f"the keys and types that wsrl train {task} --help lists",
            do=f"compare with wsrl train {task} --print_config",
        ) from error
    except MisconfigurationException as error:
        raise UserError(
            f"Lightning cannot set up the trainer: {' '.join(str(error).split())}",
            allowed="an accelerator and devices that this machine has, such as --trainer.accelerator cpu",
            do="leave --trainer.accelerator at auto, or choose cpu",
        ) from error


def _look_into(cli: TrainCLI, task: str, root: Path) -> RunState:
    """What the folder of the run holds; a wrong option of the data is refused before that."""
    if isinstance(cli.model, WeightTask):
        cli.model.prepare(cli.datamodule)
    if cli.trainer.fast_dev_run or cli.trainer.checkpoint_callback is None:
        return RunState()  # such a run leaves nothing to go on from
    checkpoints = Path(cli.trainer.checkpoint_callback.dirpath)
    state = look_into(root, task, plain_config(cli), hash_input(cli.datamodule.hparams.store), checkpoints)
    return RunState() if cli.config.get("ckpt_path") not in (None, LAST) else state


def plain_config(cli: TrainCLI) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    return json.loads(cli.parser.dump(cli.config, format="json"))


def _record(cli: TrainCLI, command: str, root: Path) -> None:
    if not cli.trainer.is_global_zero or (cli.trainer.fast_dev_run and (root / RUN_FILE).exists()):
        return
    config = plain_config(cli)
    write_run(root, command, config, inputs={"store": cli.datamodule.hparams.store}, seed=config.get("seed_everything"))


def _run(cli: TrainCLI, step: Callable[[], Any], progress: ShowProgress) -> Any:
    """Call a trainer entry point; an interrupt and a checkpoint that does not fit become what the user can act on."""
    try:
        # Lightning ends an interrupted run by SystemExit; the other two come from the checkpoint.
        return step()
    except SystemExit:
        if not cli.trainer.interrupted:
            raise
        say(progress, "training stopped: give the same command again to go on from the last finished epoch")
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        if "restored a checkpoint" not in str(error):
            raise
        raise UserError(
            f"the checkpoint is of a longer run: {' '.join(str(error).split())}",
            allowed="a trainer.max_epochs of at least the epochs of the checkpoint",
            do="raise --trainer.max_epochs, or choose another --trainer.default_root_dir to start from the beginning",
        ) from error
    except (RuntimeError, KeyError) as error:
        if "loading state_dict" not in str(error):
            raise
        raise UserError(
            f"the checkpoint belongs to another model: {str(error).splitlines()[0]}",
            allowed="a checkpoint trained on a store of the same layout with the same model options",
            do="give the options of that run (its config.yaml), or leave out --ckpt_path",
        ) from error


def _metrics(cli: TrainCLI, progress: ShowProgress) -> dict[str, float]:
    """Take up the best checkpoint, test it where there is a test split, and collect the metrics."""
    metrics = {k: float(v) for k, v in cli.trainer.callback_metrics.items()}
    saved = cli.trainer.checkpoint_callback
    if saved is not None and saved.monitor and saved.best_model_path and saved.best_model_score is not None:
        best = torch.load(saved.best_model_path, map_location=cli.model.device, weights_only=True)
        cli.model.load_state_dict(best["state_dict"])
        metrics[f"best_{saved.monitor}"] = float(saved.best_model_score)
    if cli.datamodule.num_fields("test") and not cli.trainer.fast_dev_run and is_overridden("test_step", cli.model):
        tested = _run(cli, lambda: cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False), progress)
        metrics.update({k: float(v) for part in tested for k, v in part.items()})
    return metrics
