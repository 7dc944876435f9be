"""Training a classifier on the weights of fields, with Lightning.

Letters: B fields, K classes.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsrl.encoders.mlp import WeightMlpClassifier
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.training.data import WeightDataModule


class ClassifierTask(L.LightningModule):
    """Cross entropy of a perceptron over normalised weights, under AdamW with a warm-up and a cosine decay.

    Layout, label names and normalisation come from the data module when training starts, and from the checkpoint
    afterwards. Logs ``train_loss``, and ``val_`` and ``test_`` ``loss`` and ``accuracy``. Fields without a label are
    left out.

    Args:
        hidden: Width of each hidden layer.
        dropout: Share of hidden units dropped in training.
        lr: Largest learning rate.
        weight_decay: Decoupled weight decay of AdamW.
        label_smoothing: Share of each target that is spread over all classes.
        noise: Deviation of Gaussian noise on the normalised weights in training; zero for none.
        warmup_fraction: Share of the steps over which the learning rate rises.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.4,
        lr: float = 1e-3,
        weight_decay: float = 5e-2,
        label_smoothing: float = 0.0,
        noise: float = 0.0,
        warmup_fraction: float = 0.05,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.model: WeightMlpClassifier | None = None

    def configure_model(self) -> None:
        """Build the network from the data module's layout, labels and train statistics, once."""
        if self.model is not None or self._trainer is None:  # load_from_checkpoint calls this without a trainer
            return
        data = self.trainer.datamodule
        assert isinstance(data, WeightDataModule), "the classifier is trained on a WeightDataModule"
        if len(data.label_names) < 2:
            raise UserError(
                f"the store {data.hparams.store} names {len(data.label_names)} classes: there is nothing to classify",
                allowed="a store whose source has at least two classes",
                do="build one from labelled data, such as a folder with one sub-folder per class",
            )
        self._build(data.statistics(), data.label_names)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what rebuilds the network: layout and label names, as plain types."""
        checkpoint["layout"] = self.model.layout.to_json()
        checkpoint["label_names"] = list(self.model.label_names)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Rebuild the network where there is no data module, as in ``load_from_checkpoint``."""
        if self.model is None:
            self._build(WeightStatistics(Layout.from_json(checkpoint["layout"])), checkpoint["label_names"])

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Logits ``(B, K)`` of weights ``(B, *shape)``."""
        return self.model(weights)

    def training_step(self, batch, batch_index: int) -> Tensor:
        """Loss of one batch."""
        vector = self.model.statistics.normalise(batch.weights)
        if self.hparams.noise > 0:
            vector = vector + self.hparams.noise * torch.randn_like(vector)
        labelled = batch.labels >= 0
        logits = self.model.network(vector[labelled])
        loss = cross_entropy(
            logits, batch.labels[labelled], label_smoothing=self.hparams.label_smoothing, reduction="sum"
        ) / labelled.sum().clamp_min(1)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch, batch_index: int) -> None:
        """Loss and accuracy on the held-out part of the training split."""
        self._score("val", batch)

    def test_step(self, batch, batch_index: int) -> None:
        """Loss and accuracy on the test split."""
        self._score("test", batch)

    def configure_optimizers(self) -> dict:
        """AdamW, stepped along a cosine after a linear warm-up."""
        optimiser = torch.optim.AdamW(
            self.model.network.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, self._lr_factor(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, directory: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``WeightMlpClassifier.from_pretrained`` loads them."""
        self.model.save_pretrained(directory)

    def _build(self, statistics: WeightStatistics, label_names: Sequence[str]) -> None:
        self.model = WeightMlpClassifier(statistics, label_names, self.hparams.hidden, self.hparams.dropout)

    def _lr_factor(self, total: float) -> Callable[[int], float]:
        """The learning rate at a step over its largest value, for a run of ``total`` steps; constant without an end."""
        warmup = max(1, round(self.hparams.warmup_fraction * total)) if math.isfinite(total) else 1

        def factor(step: int) -> float:
            if step < warmup or not math.isfinite(total):
                return min(1.0, (step + 1) / warmup)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

        return factor

    def _score(self, part: str, batch) -> None:
        labelled = batch.labels >= 0
        if not bool(labelled.any()):
            return
        labels = batch.labels[labelled]
        logits = self.model({name: tensor[labelled] for name, tensor in batch.weights.items()})
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        scores = {f"{part}_loss": cross_entropy(logits, labels), f"{part}_accuracy": accuracy}
        self.log_dict(scores, on_epoch=True, prog_bar=True, batch_size=len(labels), sync_dist=True)
