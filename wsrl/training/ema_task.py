"""What trainings share whose network is followed by a moving average and exported at the end."""

from pathlib import Path

import lightning as L
import torch
from diffusers import DiffusionPipeline, ModelMixin

from wsrl.durable import whole
from wsrl.training.optimisation import exponential_average, scheduled

VALIDATION_SEED = 7
"""Seed of the noise and of the points of every validation and test, so that their scores can be compared."""


class AveragedTask(L.LightningModule):
    """A task with a ``model``, its moving ``average``, and what is :meth:`exported` to ``<export_dir>/model``.

    Hyper-parameters that it reads: ``learning_rate``, ``weight_decay``, ``warmup_steps``, ``ema_decay`` and
    ``export_dir`` (None takes the trainer's root directory).
    """

    def start_average(self) -> None:
        """Begin to follow ``model``, which has just been built."""
        self.average = exponential_average(self.model, self.hparams.ema_decay)
        self._averaged_at = 0

    def on_train_batch_end(self, *_) -> None:
        """Follow the parameters with their average after each optimiser step."""
        if self.global_step != self._averaged_at:
            self.average.update_parameters(self.model)
            self._averaged_at = self.global_step

    def configure_optimizers(self):
        """AdamW with linear warm-up and cosine decay over the run."""
        options = self.hparams
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=self.device.type != "mps",
        )
        total = self.trainer.estimated_stepping_batches
        return scheduled(optimizer, min(options.warmup_steps, total / 10), total)  # a short run rises for a tenth

    def exported(self) -> ModelMixin | DiffusionPipeline:
        """What the run leaves behind."""
        raise NotImplementedError

    def on_fit_end(self) -> None:
        """Save what the run leaves behind, whole or not at all."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            return
        root = Path(self.hparams.export_dir or self.trainer.default_root_dir)
        save_whole(self.exported(), root / "model")

    def generator(self, *numbers: int) -> torch.Generator:
        """Randomness that depends on the numbers alone."""
        seed = 0
        for number in numbers:
            seed = (seed * 1_000_003 + number) % (1 << 62)
        return torch.Generator(device=self.device).manual_seed(seed)


def save_whole(model: ModelMixin | DiffusionPipeline, directory: Path) -> None:
    """Save a model beside ``directory`` and put it in place by renaming.

    Raises:
        UserError: The disk refuses.
    """
    with whole(directory, alone=True) as temporary:
        model.save_pretrained(temporary)
