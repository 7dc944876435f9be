"""What all tasks over weights with an encoder share: the model, its augmented batches, AdamW and its schedule.

Letters: B fields, V trainable weights.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from wsrl.encoders.encoder import WeightEncoder
from wsrl.encoders.models import WeightModel
from wsrl.encoders.registry import build_encoder, encoder_config
from wsrl.errors import UserError
from wsrl.fields.gauge import CANONICAL, RAW
from wsrl.options import SHARE, check_values
from wsrl.training.augmentation import UNCHANGED, Augmentation, AugmentConfig
from wsrl.training.optimisation import scheduled
from wsrl.training.weight_data import WeightDataModule

MEASURED_FIELDS = 4096
"""Training fields that an encoder may measure before training."""


class WeightTask(L.LightningModule):
    """An encoder with a linear head, under AdamW with a warm-up and a cosine decay.

    Layout and normalisation come from the data module when training starts, and from the checkpoint afterwards. The
    augmentation of a batch depends on the seed of the run and on the step alone.

    Args:
        encoder: Kind of encoder: ``mlp``, ``deepsets``, ``statnn``, ``transformer`` or ``unf``.
        options: Options of the encoder, by name.
        hidden: The option ``hidden`` of the encoder in short: width of each layer.
        dropout: The option ``dropout`` of the encoder in short.
        head_dropout: Share of the embedding that is dropped in training.
        lr: Largest learning rate.
        weight_decay: Decoupled weight decay of AdamW.
        warmup_fraction: Share of the steps over which the learning rate rises.
        augment: Changes of the weights in training; all off by default.
    """

    model_class: type[WeightModel]

    def __init__(
        self,
        encoder: str = "mlp",
        options: dict[str, Any] | None = None,
        hidden: Sequence[int] | None = None,
        dropout: float | None = None,
        head_dropout: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 5e-2,
        warmup_fraction: float = 0.05,
        augment: AugmentConfig = UNCHANGED,
    ):
        super().__init__()
        short = {"hidden": hidden, "dropout": dropout}
        self.encoder_options = {**(options or {}), **{k: v for k, v in short.items() if v is not None}}
        encoder_config(encoder, self.encoder_options)  # a wrong option is refused before the store is read
        check_values({"head_dropout": head_dropout}, "model.", head_dropout=SHARE)
        augment = AugmentConfig(**augment) if isinstance(augment, dict) else augment  # a checkpoint holds plain values
        self.save_hyperparameters(ignore=["augment"])
        self.save_hyperparameters({"augment": asdict(augment)})
        self.augment = augment
        self.model: WeightModel | None = None
        self.augmentation: Augmentation | None = None

    def configure_model(self) -> None:
        """Build the model from the data module, once."""
        if self.model is not None or self._trainer is None:  # load_from_checkpoint calls this without a trainer
            return
        data = self.trainer.datamodule
        assert isinstance(data, WeightDataModule), "a task over weights is trained on a WeightDataModule"
        if self.augment.permute and data.hparams.gauge == CANONICAL:
            raise UserError(
                "model.augment.permute is on, and data.gauge is canonical, which undoes every permutation",
                allowed=f"one of both: data.gauge {RAW} with permutations, or {CANONICAL} without",
                do="leave out one of them",
            )
        self.prepare(data)
        encoder = build_encoder(self.hparams.encoder, self.encoder_options, data.statistics())
        encoder.measure(_first_vectors(data, encoder, MEASURED_FIELDS))
        self.model = self.make_model(encoder, data)
        self.augmentation = Augmentation(self.augment, data.layout)

    def prepare(self, data: WeightDataModule) -> None:
        """Refuse data that the task cannot use, and ask for the columns that it needs."""
        raise NotImplementedError

    def make_model(self, encoder: WeightEncoder, data: WeightDataModule) -> WeightModel:
        """The model around an encoder."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what rebuilds the model, as plain types."""
        checkpoint["weight_model"] = self.model.to_json()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Rebuild the model where there is no data module, as in ``load_from_checkpoint``."""
        if self.model is None:
            self.model = self.model_class.from_json(checkpoint["weight_model"])
            self.augmentation = Augmentation(self.augment, self.model.layout)

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Predictions of the model for weights ``(B, *shape)``."""
        return self.model(weights)

    def on_fit_start(self) -> None:
        """Take the seed of the run, which ``seed_everything`` has set."""
        self._seed = torch.initial_seed()

    def training_vector(self, weights: dict[str, Tensor]) -> Tensor:
        """Normalised weights ``(B, V)`` of a training batch, augmented."""
        if self.augment == UNCHANGED:
            return self.model.statistics.normalise(weights)
        numbers = (self._seed % (1 << 31)) * 1_000_003 + self.global_step * 4_099 + self.global_rank
        generator = torch.Generator(device=self.device).manual_seed(numbers)
        weights = self.augmentation.permuted(weights, generator)
        return self.augmentation.disturbed(self.model.statistics.normalise(weights), generator)

    def configure_optimizers(self) -> dict:
        """AdamW, stepped along a cosine after a linear warm-up."""
        optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay
        )
        total = self.trainer.estimated_stepping_batches
        warmup = round(self.hparams.warmup_fraction * total) if math.isfinite(total) else 0
        return scheduled(optimiser, warmup, total)

    def export(self, directory: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``from_pretrained`` of the model loads them."""
        self.model.save_pretrained(directory)


def _first_vectors(data: WeightDataModule, encoder: WeightEncoder, num: int) -> Tensor:
    """Normalised weights of at most ``num`` training fields, in the order of the store."""
    vectors = []
    for batch in data.batches("train"):
        vectors.append(encoder.statistics.normalise(batch.weights))
        if sum(map(len, vectors)) >= num:
            break
    return torch.cat(vectors)[:num]
