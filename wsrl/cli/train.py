"""``wsrl train classifier|regressor|autoencoder|diffusion``: Lightning's own command line, on a weight store.

Fits, tests on the test split where there is one, and exports the model. Given again, it goes on with what is in its
folder, keeps a finished model, and refuses the folder of another one. ``--trainer.*``, ``--model.*``, ``--data.*``
and ``--checkpoint.*`` are those of LightningCLI.
"""

import argparse
import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wsrl import native
from wsrl.cli.train_folder import LAST, Found, look_into, say_going_on
from wsrl.errors import UserError

HELP = """usage: wsrl train {classifier,regressor,autoencoder,diffusion} [--config FILE] [--data.store DIR] [options]

Train a model over the weights in a store with Lightning.

  classifier   the class of a field's signal, from its weights
  regressor    a stored metric of a field (--model.target psnr), from its weights
  autoencoder  from weights to a short latent and back, on the error of the weights and of the rendered signal
  diffusion    a generator of weights

The encoder of the first two is chosen with --model.encoder {mlp,deepsets,statnn,transformer,unf} and its options with
--model.options '{name: value}'.

wsrl train TASK --help lists all options, --print_config writes them as YAML for --config.
"""


def _classifier() -> tuple[type, dict[str, Any]]:
    from wsrl.training.classifier import ClassifierTask

    return ClassifierTask, {"monitor": "val_loss", "mode": "min"}


def _regressor() -> tuple[type, dict[str, Any]]:
    from wsrl.training.regressor import RegressorTask

    return RegressorTask, {"monitor": "val_loss", "mode": "min"}


def _autoencoder() -> tuple[type, dict[str, Any]]:
    from wsrl.training.autoencoder import AutoencoderTask

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
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions of the trainer in which the tasks train, as Lightning names them."""
_PRECISION_ALIASES = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
SAVE_THEMSELVES = ("autoencoder", "diffusion")
"""Tasks that write their model at the end of training, with averaged parameters."""


def main(argv: list[str]) -> int:
    """Run the stage; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] not in TASKS:
        raise UserError(f"unknown task {argv[0]!r}", allowed=", ".join(TASKS), do="run wsrl train --help")
    metrics = train(argv[0], argv[1:])
    for name, value in metrics.items():
        print(f"{name:<40} {value:.4f}")
    return 0


def train(task: str, argv: Sequence[str]) -> dict[str, float]:
    """Fit, test and export one model.

    Args:
        task: A key of ``TASKS``.
        argv: Arguments of the LightningCLI.

    Returns:
        Validation and test metrics under dotted keys, ``<task>.<metric>``; also in ``metrics.json`` of the run.

    Raises:
        UserError: A wrong option, a missing device, or a checkpoint that cannot be used.
    """
    from wsrl.training.lightning_noise import quiet_lightning

    started = time.perf_counter()
    native.keep_freed_memory()
    with quiet_lightning():
        cli = _build_cli(task, argv)
        check_precision(cli.trainer.precision)
        root = Path(cli.trainer.default_root_dir)
        found = _look_into(cli, task, root)
        if found.finished is not None:
            print(f"{root} already holds this model, which is kept; remove it to train anew", file=sys.stderr)
            return found.finished
        checkpoint = _checkpoint_to_resume(cli, found)
        _record(cli, task, argv, root)
        _run(cli, lambda: cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint))
        metrics = _finish(cli)
    metrics = {f"{task}.{name}": value for name, value in metrics.items()}
    if cli.trainer.is_global_zero and not cli.trainer.fast_dev_run:
        from wsrl.provenance import finish_run, write_json_atomic

        if task not in SAVE_THEMSELVES:
            cli.model.export(root / "model")
        write_json_atomic(root / "metrics.json", {**metrics, "elapsed_s": time.perf_counter() - started})
        finish_run(root, **metrics)
        print(f"model: {root / 'model'}", file=sys.stderr)
    return metrics


def check_options(task: str, argv: Sequence[str]) -> None:
    """Refuse what ``train`` would refuse to parse, without a store and before anything is made.

    Args:
        task: A key of ``TASKS``.
        argv: Arguments of the LightningCLI.

    Raises:
        UserError: An unknown option or a wrong type.
    """
    from wsrl.training.lightning_noise import quiet_lightning

    with quiet_lightning():
        cli = _build_cli(task, ["--data.store=checked-later", *argv, "--seed_everything=false"], parse_only=True)
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


def _build_cli(task: str, argv: Sequence[str], *, parse_only: bool = False):
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from wsrl.cli.lightning_cli import ParsedCLI, TrainCLI
    from wsrl.training.data import WeightDataModule

    model_class, monitor = TASKS[task]()
    try:
        return (ParsedCLI if parse_only else TrainCLI)(
            model_class,
            WeightDataModule,
            run=False,
            args=list(argv),
            monitor=monitor,
            root=f"runs/{task}",
            task=task,
        )
    except (argparse.ArgumentError, UnicodeDecodeError) as error:  # the latter from a configuration that is no text
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


def _look_into(cli, task: str, root: Path) -> Found:
    """What the folder of the run holds; a wrong option of the data is told before that."""
    from wsrl.provenance import hash_input
    from wsrl.training.encoder_task import WeightTask

    if isinstance(cli.model, WeightTask):
        cli.model.prepare(cli.datamodule)
    if cli.trainer.fast_dev_run or cli.trainer.checkpoint_callback is None:
        return Found()  # such a run leaves nothing to go on from
    checkpoints = Path(cli.trainer.checkpoint_callback.dirpath)
    found = look_into(root, task, _config(cli), hash_input(cli.datamodule.hparams.store), checkpoints)
    return Found() if cli.config.get("ckpt_path") not in (None, LAST) else found


def _checkpoint_to_resume(cli, found: Found) -> str | None:
    """The path of a readable checkpoint to go on from: the given one, or the newest one of this run, if it has any."""
    given, path = cli.config.get("ckpt_path"), found.checkpoint
    if given not in (None, LAST):
        path = Path(given)
    elif path is not None:
        say_going_on(path)
    else:
        if given == LAST:
            print("no checkpoint yet: training starts from the beginning", file=sys.stderr)
        return None
    check_checkpoint(path)
    return str(path)


def check_checkpoint(path: Path) -> None:
    """Refuse a file that Lightning could not resume from.

    Args:
        path: File given by the user.

    Raises:
        UserError: The file is missing, damaged, or something else.
    """
    import torch

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


def _config(cli) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    return json.loads(cli.parser.dump(cli.config, format="json"))


def _record(cli, task: str, argv: Sequence[str], root: Path) -> None:
    from wsrl.provenance import RUN_FILE, write_run

    if not cli.trainer.is_global_zero or (cli.trainer.fast_dev_run and (root / RUN_FILE).exists()):
        return
    config = _config(cli)
    command = " ".join(["wsrl", "train", task, *argv])
    write_run(root, command, config, inputs={"store": cli.datamodule.hparams.store}, seed=config.get("seed_everything"))


def _run(cli, step: Callable[[], Any]) -> Any:
    """Call a trainer entry point; an interrupt and a checkpoint that does not fit become what the user can act on."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        return step()
    except SystemExit:
        if not cli.trainer.interrupted:
            raise
        print("training stopped: give the same command again to go on from the last finished epoch", file=sys.stderr)
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


def _finish(cli) -> dict[str, float]:
    """Take up the best checkpoint, test it where there is a test split, and collect the metrics."""
    import torch

    metrics = {k: float(v) for k, v in cli.trainer.callback_metrics.items()}
    saved = cli.trainer.checkpoint_callback
    if saved is not None and saved.monitor and saved.best_model_path and saved.best_model_score is not None:
        best = torch.load(saved.best_model_path, map_location=cli.model.device, weights_only=True)
        cli.model.load_state_dict(best["state_dict"])
        metrics[f"best_{saved.monitor}"] = float(saved.best_model_score)
    if cli.datamodule.num_fields("test") and not cli.trainer.fast_dev_run:
        from lightning.pytorch.utilities.model_helpers import is_overridden

        if is_overridden("test_step", cli.model):
            tested = _run(cli, lambda: cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False))
            metrics.update({k: float(v) for part in tested for k, v in part.items()})
    return metrics
