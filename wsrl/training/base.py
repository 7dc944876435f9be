"""A base field for a source, trained once: its configuration by default, its training, its folder and its scores."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.saving import WEIGHTS_FILE
from wsrl.fitting.defaults import default_field, is_small
from wsrl.fitting.devices import choose_device
from wsrl.progress import ShowProgress, say, silent
from wsrl.provenance import METRICS_FILE, RUN_FILE, claim_folder, finish_run, same_config, write_json_atomic, write_run
from wsrl.signals.fidelity import in_quantity
from wsrl.signals.form import SignalForm
from wsrl.signals.source import Source, prepare_signals, training_indices
from wsrl.training.base_data import Examples, SignalBatches, Stage
from wsrl.training.base_field import BaseFieldTask, BaseTrainingConfig, fit_latents, latent_psnr
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.step_progress import TrainingProgress

STEPS, SMALL_STEPS, FINE_STEPS, WHOLE_STEPS = 1500, 800, 1000, 300
"""Steps of a stage: up to 32 points a side, on small grids, on finer grids, and on the whole of the finest."""
POINTS, SMALL_POINTS = 12_544, 4096
"""Points that a step sees, as a rule and on small grids."""
FINE = 64
"""Points a side beyond which the stages but the last see a coarser grid: the base field is smooth there anyway."""
HELDOUT_POINTS, SCORED_POINTS = 1 << 18, 1 << 22
"""Points of all held-out signals on fine grids, and of all training signals whose reconstruction is scored."""
MOST_SIGNALS = 4000
VALUES_IN_MEMORY = 1 << 28
"""Numbers of training signals that are kept in memory: a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class TrainedBase(os.PathLike):
    """A base field that was trained; a path to its folder wherever one is asked for.

    Attributes:
        folder: Its folder.
        metrics: ``base.train_psnr_mean``, ``base.heldout_psnr_mean`` and ``base.mean_field_psnr`` in dB, among others.
    """

    folder: Path
    metrics: dict[str, float]

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def field(self) -> BaseField:
        """The base field, read from its folder."""
        return BaseField.from_pretrained(self.folder)


def train_base(
    source: Source,
    config: BaseTrainingConfig | None = None,
    *,
    out: str | os.PathLike,
    device: str = "auto",
    command: str = "",
    progress: ShowProgress = silent,
) -> TrainedBase:
    """Train a base field, or keep the one that an equal run left in ``out``.

    Args:
        source: Signals of one form; those of the split ``train`` are used where there are splits.
        config: Architecture and training; None for the default of the grid and the number of signals.
        out: Folder for ``config.json``, ``model.safetensors``, ``run.json`` and ``metrics.json``.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What is recorded as the command.
        progress: Shows the steps.

    Raises:
        UserError: The folder holds something else, or no signal can be read.
    """
    out, target = Path(out), choose_device(device)
    config = config or default_base(source.form, len(source))
    # What is there is kept, or refused where it is something else.
    claim_folder(out, (RUN_FILE,), "base")
    recorded = {"source": source.description, "train": asdict(config)}
    if (kept := _kept(out, recorded)) is not None:
        say(progress, f"{out} already holds this base field")
        return kept
    # Recorded before the first step, scored and saved after the last.
    write_run(out, command or f"wsrl base {source.name}", recorded, seed=config.seed)
    train, heldout = _examples(source, config, progress)
    base, latents = _fit(config, train, target, out, progress)
    metrics = _scores(base, latents, config, train, heldout)
    base.save_pretrained(out)
    write_json_atomic(out / METRICS_FILE, metrics)
    finish_run(out, **metrics)
    return TrainedBase(folder=out, metrics=metrics)


def default_base(form: SignalForm, num_signals: int) -> BaseTrainingConfig:
    """Base training in stages of equal cost a step: many coarse signals, then few full ones."""
    model = BaseFieldConfig(field=default_field(form))
    if form.grid is None:
        stages = (
            Stage(resolution=1 / 64, batch_size=48, steps=800),
            Stage(resolution=1 / 16, batch_size=12, steps=800),
        )
        how = {"num_signals": min(num_signals, 1000), "num_heldout": 32, "heldout_steps": 100}
        return BaseTrainingConfig(model=model, stages=stages, **how)
    stages = tuple(_stage(form.grid, share, steps) for share, steps in _shares(max(form.grid)))
    how = {"num_signals": min(num_signals, _most_signals(form))}
    if max(form.grid) > FINE:  # the latents of held-out signals are fitted to all their points
        how |= {"num_heldout": max(4, HELDOUT_POINTS // prod(form.grid)), "heldout_steps": 60}
    return BaseTrainingConfig(model=model, stages=stages, **how)


def _shares(side: int) -> list[tuple[float, int]]:
    """Share of the full grid and steps of each stage; a fine grid is seen whole in few steps at the end."""
    if is_small((side,)):
        return [(0.5, SMALL_STEPS), (1.0, SMALL_STEPS)]
    if side <= FINE:
        steps = STEPS if side <= FINE // 2 else FINE_STEPS
        return [(0.25, steps), (0.5, steps), (1.0, steps)]
    return [*((coarse / side, FINE_STEPS) for coarse in (FINE / 4, FINE / 2, FINE)), (1.0, WHOLE_STEPS)]


def _stage(grid: tuple[int, ...], share: float, steps: int) -> Stage:
    """A stage whose steps see about ``POINTS`` points."""
    points = max(1, round(prod(grid) * share ** len(grid)))
    batch = (SMALL_POINTS if is_small(grid) else POINTS) // points
    return Stage(resolution=share, batch_size=max(1, min(512, batch)), steps=steps)


def _most_signals(form: SignalForm) -> int:
    """As many signals as a base field is trained on, fewer where they would fill the memory."""
    return max(1, min(MOST_SIGNALS, VALUES_IN_MEMORY // (prod(form.grid) * form.out_features)))


def heldout_indices(source: Source, used: list[int], num_used: int) -> list[int]:
    """Indices outside the training signals: other splits first, then what the limit left of the training split."""
    training = set(used)
    return [i for i in range(len(source)) if i not in training] + used[num_used:]


def _kept(out: Path, recorded: dict) -> TrainedBase | None:
    """The base field of an equal run; None where there is none yet."""
    metrics = out / METRICS_FILE
    if not (metrics.is_file() and (out / WEIGHTS_FILE).is_file()):
        return None
    if not same_config(out, recorded):
        raise UserError(
            f"{out} holds a base field of another configuration or of other data",
            allowed="a new folder, or the configuration and data that the base field was trained with",
            do="choose another --out, or remove that folder",
        )
    return TrainedBase(folder=out, metrics=json.loads(metrics.read_text()))


def _examples(source: Source, config: BaseTrainingConfig, progress: ShowProgress) -> tuple[Examples, Examples | None]:
    """Signals to train on and held-out ones, where there are any."""
    indices = training_indices(source)
    used, rest = indices[: config.num_signals], heldout_indices(source, indices, config.num_signals)
    rest = rest[: config.num_heldout]
    prepare_signals(source, [*used, *rest], progress)
    train = _read_examples(source, used, config.num_points, progress)
    if train is None:
        raise UserError(f"{source.name} has no readable signal to train on", do="look at the reasons above")
    return train, _read_examples(source, rest, config.heldout_points, progress)


def _read_examples(source: Source, indices: Sequence[int], max_points: int, progress: ShowProgress) -> Examples | None:
    """The readable signals among ``indices`` as examples; None where there is none."""
    signals, problems = [], []
    for index in indices:
        try:
            signals.append(Examples.first_points(source[index], max_points))
        except SignalError as error:
            problems.append(str(error))
    if problems:
        say(progress, f"{len(problems)} signals left out, the first: {problems[0]}")
    return Examples.of(signals, max_points) if signals else None


def _fit(
    config: BaseTrainingConfig, train: Examples, device: torch.device, out: Path, progress: ShowProgress
) -> tuple[BaseField, Tensor]:
    """Train with Lightning: the base field, and the latents ``(N, Z)`` of the training signals."""
    # One epoch of all stages, without Lightning's own logs and checkpoints.
    task = BaseFieldTask(config, len(train), *train.sizes, train.loss)
    batches = SignalBatches(train, config.stages, torch.Generator().manual_seed(config.seed + 1))
    with quiet_lightning():
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[TrainingProgress(progress, "base field")],
            default_root_dir=out,
        )
        try:
            trainer.fit(task, batches)
        except SystemExit:  # how Lightning ends an interrupted fit
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from None
    return task.finished_base().cpu(), task.latents.weight.detach().cpu()


def _scores(
    base: BaseField, latents: Tensor, config: BaseTrainingConfig, train: Examples, heldout: Examples | None
) -> dict[str, float]:
    """How well the latents reproduce up to 1,000 training signals, how well the trunk alone does, and held-out ones.

    Of signals on no grid so many points are compared as the fit of held-out ones sees.
    """
    num_points = config.heldout_points
    num_scored = max(16, min(1000, SCORED_POINTS // prod(train.form.grid or (num_points,))))
    seen = train.points(slice(0, num_scored if train.form.grid else 100), num_points)
    low, high = train.form.value_range
    # The trunk is the mean field: its PSNR is what the latents have to beat.
    with torch.no_grad():
        mean_error = (in_quantity(base.trunk(seen.coords), train.form) - seen.values).square().mean()
    metrics = {
        "base.train_psnr_mean": latent_psnr(base, latents[:num_scored], train, num_points),
        "base.mean_field_psnr": float(10 * torch.log10((high - low) ** 2 / mean_error)),
        "base.num_train": float(len(train)),
        "base.num_heldout": float(0 if heldout is None else len(heldout)),
    }
    # Latents of held-out signals are fitted with the network frozen.
    if heldout is not None:
        whole = heldout.points(slice(None))
        fitted = fit_latents(base, whole, steps=config.heldout_steps, learning_rate=0.05, loss=heldout.loss)
        metrics["base.heldout_psnr_mean"] = latent_psnr(base, fitted, heldout)
    return metrics
