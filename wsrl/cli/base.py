"""``wsrl base``: train a base field on the training signals of a source."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from wsrl.errors import SignalError, UserError


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage

    parser = make_parser()
    options, source = stage.parse_for_data(parser, argv, data_defaults)
    config = parser.instantiate(options).train
    if not any(word.split("=")[0] == "--config" for word in argv):
        print(f"no --config: {config}", file=sys.stderr)
    command = shlex.join(["wsrl", "base", *argv])
    metrics = train_base(source, config, Path(options.out), options.device, command=command)
    for name, value in metrics.items():
        print(f"{name:<32} {value:.3f}")
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage
    from wsrl.training.base_field import BaseTrainingConfig

    parser = stage.make_parser("base", __doc__)
    stage.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder to write the base field to")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_class_arguments(BaseTrainingConfig, "train", help="how the base field is trained")
    return parser


def data_defaults(options, source) -> dict:
    """Defaults by dotted name that fit the form and the number of the signals."""
    from wsrl.cli.defaults import default_base
    from wsrl.cli.stage import dotted

    return dotted("train", asdict(default_base(source.form.grid, len(source))))


def train_base(source, config, out: Path, device: str = "auto", *, command: str = "") -> dict[str, float]:
    """Train a base field, or keep the one that an equal run left in ``out``.

    Args:
        source: Signals of one form; those of the split ``train`` are used where there are splits.
        config: Architecture and training.
        out: Folder for ``config.json``, ``model.safetensors``, ``run.json`` and ``metrics.json``.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What is recorded as the command.

    Returns:
        ``base.train_psnr_mean``, ``base.heldout_psnr_mean`` and ``base.mean_field_psnr`` in dB, among others.

    Raises:
        UserError: The folder holds something else, or no signal can be read.
    """
    import json

    from wsrl.cli import stage
    from wsrl.fitting.devices import choose_device
    from wsrl.provenance import finish_run, write_json_atomic, write_run

    target = choose_device(device)
    stage.claim_folder(out, ("run.json",), "base")
    recorded = {"source": source.description, "train": asdict(config)}
    done = out / "metrics.json"
    if stage.same_config(out, recorded) and done.is_file() and (out / "model.safetensors").is_file():
        print(f"{out} already holds this base field", file=sys.stderr)
        return json.loads(done.read_text())
    if done.is_file() and (out / "model.safetensors").is_file():
        raise UserError(
            f"{out} holds a base field of another configuration or of other data",
            allowed="a new folder, or the configuration and data that the base field was trained with",
            do="choose another --out, or remove that folder",
        )
    write_run(out, command or f"wsrl base {source.name}", recorded, seed=config.seed)
    indices = training_indices(source)
    rest = heldout_indices(source, indices, config.num_signals)[: config.num_heldout]
    stage.prepare_signals(source, [*indices[: config.num_signals], *rest])
    train = read_examples(source, indices[: config.num_signals], config.num_points)
    if train is None:
        raise UserError(f"{source.name} has no readable signal to train on", do="look at the reasons above")
    heldout = read_examples(source, rest, config.heldout_points)
    base, metrics = _train(config, train, heldout, target, out)
    base.save_pretrained(out)
    write_json_atomic(done, metrics)
    finish_run(out, **metrics)
    return metrics


def training_indices(source) -> list[int]:
    """Indices of the split ``train``, or all where the source has no such split."""
    splits = source.splits()
    return [i for i, split in enumerate(splits) if split == "train"] or list(range(len(splits)))


def heldout_indices(source, used: list[int], num_used: int) -> list[int]:
    """Indices outside the training signals: other splits first, then what the limit left of the training split."""
    chosen = set(used)
    return [i for i in range(len(source)) if i not in chosen] + used[num_used:]


def read_examples(source, indices, max_points: int):
    """The readable signals among ``indices`` as examples; None where there is none."""
    from wsrl.training.base_data import Examples

    signals, problems = [], []
    for index in indices:
        try:
            signals.append(Examples.first_points(source[index], max_points))
        except SignalError as error:
            problems.append(str(error))
    if problems:
        print(f"{len(problems)} signals left out, the first: {problems[0]}", file=sys.stderr)
    return Examples.of(signals, max_points) if signals else None


def _train(config, train, heldout, device, out: Path):
    """Train with Lightning, and score the result on training and on held-out signals."""
    import lightning as L
    import torch

    from wsrl.cli.display import show_progress
    from wsrl.training.base_data import SignalBatches
    from wsrl.training.base_field import BaseFieldTask
    from wsrl.training.lightning_noise import quiet_lightning
    from wsrl.training.step_progress import TrainingProgress

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
            callbacks=[TrainingProgress(show_progress, "base field")],
            default_root_dir=out,
        )
        try:
            trainer.fit(task, batches)
        except SystemExit:  # how Lightning ends an interrupted fit
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from None
    base = task.finished_base().cpu()
    return base, _scores(base, task.latents.weight.detach().cpu(), config, train, heldout)


def _scores(base, latents, config, train, heldout) -> dict[str, float]:
    """How well the latents reproduce up to 1,000 training signals, how well the trunk alone does, and held-out ones.

    Of signals on no grid so many points are compared as the fit of held-out ones sees.
    """
    import torch

    from wsrl.signals.fidelity import in_quantity
    from wsrl.training.base_field import fit_latents, latent_psnr

    num_points = config.heldout_points
    seen = train.points(slice(0, 1000 if train.form.grid else 100), num_points)
    low, high = train.form.value_range
    with torch.no_grad():
        mean_error = (in_quantity(base.trunk(seen.coords), train.form) - seen.values).square().mean()
    metrics = {
        "base.train_psnr_mean": latent_psnr(base, latents[:1000], train, num_points),
        "base.mean_field_psnr": float(10 * torch.log10((high - low) ** 2 / mean_error)),
        "base.num_train": float(len(train)),
        "base.num_heldout": float(0 if heldout is None else len(heldout)),
    }
    if heldout is not None:
        whole = heldout.points(slice(None))
        found = fit_latents(base, whole, steps=config.heldout_steps, learning_rate=0.05, loss=heldout.loss)
        metrics["base.heldout_psnr_mean"] = latent_psnr(base, found, heldout)
    return metrics
