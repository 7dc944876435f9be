"""Training a network that predicts a stored metric of a field from its weights, with Lightning.

Letters: B fields of a batch, N fields of a part.
"""

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn.functional import mse_loss

from wsrl.encoders.encoder import WeightEncoder
from wsrl.encoders.models import WeightRegressor
from wsrl.errors import UserError
from wsrl.training.encoder_task import WeightTask
from wsrl.training.weight_data import WeightDataModule


class RegressorTask(WeightTask):
    """Squared error of a metric of the fields, standardised over the training part, by an encoder with a linear head.

    Logs ``train_loss``, and of the ``val_`` and ``test_`` part: ``loss`` (mean squared error in standard deviations of
    the training part), ``mae`` (mean absolute error in the unit of the metric), ``r2`` (one less the squared error over
    that of the part's own mean) and ``kendall``: Kendall's tau-b, the share of pairs of fields that the prediction puts
    in the right order less the share that it puts in the wrong one, ties aside; 1 is the right order, 0 none, as of a
    constant. Fields whose metric is missing or not finite are left out.

    Args:
        target: Name of the stored metric.
        **kwargs: Options of every task over weights.
    """

    model_class = WeightRegressor

    def __init__(self, target: str = "psnr", **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters({"target": target})
        self._seen: list[tuple[Tensor, Tensor]] = []

    def prepare(self, data: WeightDataModule) -> None:
        """Ask for the metric in the batches."""
        data.keep_metric(self.hparams.target)

    def make_model(self, encoder: WeightEncoder, data: WeightDataModule) -> WeightRegressor:
        """The regressor, with mean and standard deviation of the target over the training part."""
        target = self.hparams.target
        values = data.store.metrics(target)[data.rows("train")]
        values = values[np.isfinite(values)]
        if not len(values) or values.std() == 0:
            raise UserError(
                f"the metric {target} does not vary over the training fields: there is nothing to predict",
                allowed="a metric with at least two different finite values",
                do=f"choose another --model.target: {', '.join(data.store.metric_names)}",
            )
        # Targets are standardised by the training fields.
        model = WeightRegressor(encoder, target, self.hparams.head_dropout)
        model.target_mean.fill_(values.mean())
        model.target_std.fill_(values.std())
        return model

    def training_step(self, batch, batch_index: int) -> Tensor:
        """Loss of one batch."""
        target = self._standardised(batch)
        known = target.isfinite()
        vector = self.training_vector(batch.weights)[known]
        errors = (self.model.standardised(vector) - target[known]).square()
        loss = errors.sum() / known.sum().clamp_min(1)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch, batch_index: int) -> None:
        """Collect predictions on the held-out part of the training split."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Score them."""
        self._score("val")

    def test_step(self, batch, batch_index: int) -> None:
        """Collect predictions on the test split."""
        self._collect(batch)

    def on_test_epoch_end(self) -> None:
        """Score them."""
        self._score("test")

    def _standardised(self, batch) -> Tensor:
        """Target ``(B,)`` in standard deviations, NaN or infinite where it is unknown."""
        return (batch.metrics[self.hparams.target] - self.model.target_mean) / self.model.target_std

    def _collect(self, batch) -> None:
        vector = self.model.statistics.normalise(batch.weights)
        self._seen.append((self.model.standardised(vector).float(), self._standardised(batch)))  # autocast shortens it

    def _score(self, part: str) -> None:
        predicted, target = (self._gathered(values) for values in zip(*self._seen))
        self._seen.clear()
        known = target.isfinite()
        if not bool(known.any()):
            return
        scores = regression_scores(predicted[known], target[known])
        scores["mae"] *= float(self.model.target_std)
        self.log_dict({f"{part}_{name}": value for name, value in scores.items()}, prog_bar=True)

    def _gathered(self, values: tuple[Tensor, ...]) -> Tensor:
        """The values ``(N,)`` of all batches and processes; every process has equally many."""
        return self.all_gather(torch.cat(values)).flatten()


def regression_scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """How well values ``(N,)`` are predicted.

    Args:
        predicted: Predictions.
        target: What they should be.

    Returns:
        ``loss`` (mean squared error), ``mae``, ``r2`` and ``kendall`` (tau-b; zero where it is undefined because one
        side is constant, as ``r2`` is for a constant target).
    """
    loss = float(mse_loss(predicted, target))
    variance = float(target.var(correction=0))
    tau = float(kendalltau(predicted.cpu().numpy(), target.cpu().numpy()).statistic) if variance else 0.0
    return {
        "loss": loss,
        "mae": float((predicted - target).abs().mean()),
        "r2": 1.0 - loss / variance if variance else 0.0,
        "kendall": 0.0 if np.isnan(tau) else tau,
    }
