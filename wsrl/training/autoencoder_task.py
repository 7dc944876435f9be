"""Training of a weight autoencoder, as a Lightning task.

Letters: B fields of a batch, V trainable weights, K latent tokens, D length of a latent token, P points, C channels.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from wsrl.encoders.autoencoder import WeightAutoencoder
from wsrl.encoders.encoder import NORMALISATIONS
from wsrl.encoders.normalisation import WeightStatistics, shared_statistics
from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.fields.layout import Layout
from wsrl.options import SHARE, at_least, check_values, multiple_of, one_of
from wsrl.signals.fidelity import psnr
from wsrl.training.ema_task import AveragedTask
from wsrl.training.stored_signals import StoredSignals


class AutoencoderTask(AveragedTask):
    """Trains a weight autoencoder on the error of the weights and on that of the signal they stand for.

    The signal of the stored and of the reconstructed weights is rendered through the frozen base field at random
    points. Both errors are shares of a variance over the training fields: of each weight, and of the values at a point.
    After the last step the latents of the training fields are measured with the averaged network, which is saved as a
    :class:`WeightAutoencoder` in ``<export_dir>/model``.

    Args:
        normalisation: ``entry``: mean and standard deviation of each weight; ``tensor``: one over permuted axes.
        weight_loss: Weight of the error of the normalised weights.
        signal_loss: Weight of the error of the rendered signal.
        perceptual: Folder of a classifier of pictures; reconstructed pictures are then rendered whole, and compared by
            its features as well (:class:`wsrl.training.stored_signals.PerceptualLoss`). None for no such comparison.
        perceptual_loss: Weight of that error.
        kl_weight: Weight of the divergence from the normal distribution; without ``kl`` it is the latents' size alone.
        latent_noise: Standard deviation of the noise on latents in training, without ``kl``.
        weight_noise: Standard deviation of the noise on what the encoder reads in training, in those of each weight.
        num_points: Random points at which a field is rendered in one step.
        learning_rate: Peak step size of AdamW.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps over which the step size rises; it then falls to zero along a cosine.
        ema_decay: Decay of the moving average of the parameters.
        seed: Seed of initial parameters, points and noise.
        export_dir: Where ``model/`` is written; None takes the trainer's root directory.
        **architecture: Options of :class:`WeightAutoencoder`, but for the layout and the gauge, which the data say.

    Raises:
        UserError: An option does not fit.
    """

    def __init__(
        self,
        normalisation: str = "entry",
        weight_loss: float = 0.1,
        signal_loss: float = 1.0,
        perceptual: str | None = None,
        perceptual_loss: float = 1.0,
        kl_weight: float = 1e-4,
        latent_noise: float = 0.1,
        weight_noise: float = 0.3,
        num_points: int = 96,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        ema_decay: float = 0.995,
        seed: int = 0,
        export_dir: str | None = None,
        **architecture: Any,
    ):
        super().__init__()
        self.architecture = architecture
        check_options(locals() | architecture_with_defaults(architecture))
        self.save_hyperparameters()
        self.model = self.average = None
        self.register_buffer("signal_variance", torch.ones(()))
        self._signal: StoredSignals | None = None
        self._is_measured = False

    def setup(self, stage: str) -> None:
        """Build network and statistics from the data module, once, and take up the base field of the store."""
        data = self.trainer.datamodule
        self._signal = StoredSignals(data.store)
        if self.hparams.perceptual is not None:
            self._signal.look_through(self.hparams.perceptual, data.batches("train"))
        if self.model is None:
            statistics = data.statistics()
            self.build(shared_statistics(statistics) if self.hparams.normalisation == "tensor" else statistics)
            self.signal_variance.copy_(self._signal.variance(data.batches("train"), self.hparams.seed))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the layout and the gauge, from which the network is rebuilt, as plain types."""
        checkpoint["layout"], checkpoint["gauge"] = self.model.layout.to_json(), self.model.statistics.gauge

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Rebuild the network where there is no data module, as in ``load_from_checkpoint``."""
        if self.model is None:
            gauge = checkpoint.get("gauge", RAW)  # earlier checkpoints do not say: there was no other
            self.build(WeightStatistics(Layout.from_json(checkpoint["layout"]), gauge))

    def build(self, statistics: WeightStatistics) -> None:
        """Build the network for the fields that ``statistics`` describe."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams.seed)
            layout = statistics.layout.to_json()
            self.model = WeightAutoencoder(layout=layout, gauge=statistics.gauge, **self.architecture)
        self.model.statistics.load_state_dict(statistics.state_dict())
        self.start_average()

    def training_step(self, batch, batch_index: int) -> Tensor:
        """All losses; points and noise depend on seed, step and process alone, so a resumed run sees the same."""
        options, model = self.hparams, self.model
        generator = self.generator(options.seed, self.global_step, batch_index, self.global_rank)
        # Noisy weights to latents, noisy latents to weights.
        clean = model.statistics.normalise(batch.weights)
        mean, log_variance = model.posterior(clean + options.weight_noise * normal_like(clean, generator))
        spread = options.latent_noise if log_variance is None else (0.5 * log_variance).exp()
        vector = model.write(mean + spread * normal_like(mean, generator))
        # Errors of the weights and of what they show, and the size of the latents.
        parts = {"weight": mse_loss(vector, clean), "kl": divergence(mean, log_variance)}
        parts |= self._rendered_errors(batch.weights, vector, generator)
        loss = sum(options["kl_weight" if name == "kl" else f"{name}_loss"] * part for name, part in parts.items())
        self.log("train_loss", loss, prog_bar=True, batch_size=len(clean))
        self.log_dict({f"train_{name}": part for name, part in parts.items()}, batch_size=len(clean))
        return loss

    def _rendered_errors(
        self, weights: dict[str, Tensor], vector: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Errors of the signal: at random points, or of whole pictures where a classifier looks at them as well."""
        signal, whole = self._signal, self._signal.perceptual is not None
        if not self.hparams.signal_loss and not whole:
            return {}
        coords = signal.fixed_points().to(vector.device) if whole else signal.points(self.hparams.num_points, generator)
        # What the stored and the rebuilt fields show at the same points.
        with torch.no_grad():
            wanted = signal.values(weights, coords)
        rebuilt = signal.values(self.model.statistics.denormalise(vector), coords)
        errors = {"signal": mse_loss(rebuilt, wanted) / self.signal_variance}
        if whole:
            pictures = signal.pictures(rebuilt), signal.pictures(wanted)
            errors["perceptual"] = signal.perceptual.to(vector.device)(*pictures)
        return errors

    def validation_step(self, batch, batch_index: int) -> None:
        """Errors of the averaged network without noise, and the same weighted sum of them as in training."""
        errors = self.errors(batch.weights)
        loss = self.hparams.weight_loss * errors["weight_error"] + self.hparams.signal_loss * errors["signal_error"]
        metrics = {"val_loss": loss, **{f"val_{name}": value for name, value in errors.items()}}
        self.log_dict(metrics, batch_size=len(batch), sync_dist=True)

    def test_step(self, batch, batch_index: int) -> None:
        """Errors of the averaged network."""
        metrics = {f"test_{name}": value for name, value in self.errors(batch.weights).items()}
        self.log_dict(metrics, batch_size=len(batch), sync_dist=True)

    @torch.no_grad()
    def errors(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """How far stored fields are from their reconstructions by the averaged network.

        Args:
            weights: Stored fields ``(B, *shape)``.

        Returns:
            ``weight_error`` and ``signal_error``, shares of the variances of the training fields, and ``psnr``, the
            mean over fields in dB, between stored and reconstructed fields on the grid of the data.
        """
        model = self.average.module
        clean = model.statistics.normalise(weights)
        vector = model.write(model.posterior(clean)[0])
        coords = self._signal.fixed_points().to(clean.device)
        wanted, rebuilt = (self._signal.values(w, coords) for w in (weights, model.statistics.denormalise(vector)))
        return {
            "weight_error": mse_loss(vector, clean),
            "signal_error": mse_loss(rebuilt, wanted) / self.signal_variance,
            "psnr": psnr(rebuilt, wanted, self._signal.form.value_range).mean(),
        }

    def on_train_end(self) -> None:
        """Measure the latents of the training fields with the averaged network."""
        self._measure_latents()

    def _measure_latents(self) -> None:
        self._is_measured = True
        batches = self.trainer.datamodule.batches("train")
        model = self.average.module
        metrics = model.measure_latents({k: v.to(self.device) for k, v in batch.weights.items()} for batch in batches)
        self.model.latent_mean.copy_(model.latent_mean)
        self.model.latent_std.copy_(model.latent_std)
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.global_step)

    def exported(self) -> WeightAutoencoder:
        """The averaged network; its latents are measured here where a resumed run had nothing left to train."""
        if not self._is_measured:
            self._measure_latents()
        return self.average.module


def divergence(mean: Tensor, log_variance: Tensor | None) -> Tensor:
    """Kullback-Leibler divergence from the standard normal distribution, in nats per latent number.

    Without a variance it is the part of it that depends on the mean.

    Source: Kingma and Welling 2014, appendix B.
    """
    if log_variance is None:
        return 0.5 * mean.square().mean()
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


def normal_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape of a tensor."""
    return torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=tensor.dtype)


def architecture_with_defaults(architecture: dict[str, Any]) -> dict[str, Any]:
    """Every option of :class:`WeightAutoencoder` but those of the data; those left out have their defaults."""
    bound = inspect.signature(WeightAutoencoder).bind(layout=[], **architecture)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name not in ("layout", "gauge")}


def check_options(options: dict[str, Any]) -> None:
    """Refuse options that do not fit, before a store is read.

    Raises:
        UserError: Names the option, what is allowed and what to do.
    """
    non_negative = ("weight_loss", "signal_loss", "perceptual_loss", "kl_weight", "latent_noise", "weight_noise")
    check_values(
        options,
        "model.",
        **dict.fromkeys(("latent_tokens", "latent_channels", "num_points"), at_least(1)),
        **dict.fromkeys(non_negative, at_least(0)),
        ema_decay=SHARE,
        normalisation=one_of(*NORMALISATIONS),
        width=multiple_of(options["heads"], "heads"),
    )
    if not options["weight_loss"] and not options["signal_loss"]:
        raise UserError(
            "weight_loss and signal_loss are both 0", allowed="at least one above 0", do="set --model.signal_loss 1"
        )
