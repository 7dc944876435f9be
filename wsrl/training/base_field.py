"""Training of the base field: a variational auto-decoder over many signals, from coarse to fine.

Letters: N signals, B signals of a batch, P points, C channels, Z latent size.
"""

from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fitting.loss import SQUARED, PointLoss
from wsrl.signals.fidelity import in_quantity, psnr
from wsrl.training.base_data import Examples, SignalBatch, Stage
from wsrl.training.optimisation import exponential_average, scheduled

WARMUP = 0.05
"""Share of the steps over which the step sizes rise."""


@dataclass(frozen=True, kw_only=True)
class BaseTrainingConfig:
    """How a base field is trained.

    Attributes:
        model: Architecture.
        stages: Stages in order: large batches on coarse grids first, small ones on the full grid last.
        learning_rate: Peak step size of the network's Adam.
        latent_learning_rate: Peak step size of the latents' Adam.
        latent_penalty: The lambda in ``L_recon + lambda ||z||^2``, with the mean over the entries of a latent.
        latent_noise: Standard deviation of the normal noise that is added to a latent in training.
        ema_decay: Decay of the moving average of the network's parameters, which becomes the base field.
        num_signals: Number of training signals, at most.
        num_points: Points that are kept of a training signal on no grid; each step draws some of them.
        num_heldout: Signals outside training whose latents are fitted with the base frozen.
        heldout_steps: Steps of that fit.
        heldout_points: Points of a signal on no grid that it sees.
        seed: Seed of the initial weights, the batches and the noise.
    """

    model: BaseFieldConfig = BaseFieldConfig()
    stages: tuple[Stage, ...] = (
        Stage(resolution=0.25, batch_size=256, steps=1500),
        Stage(resolution=0.5, batch_size=64, steps=1500),
        Stage(resolution=1.0, batch_size=16, steps=1500),
    )
    learning_rate: float = 5e-3
    latent_learning_rate: float = 1e-2
    latent_penalty: float = 1e-4
    latent_noise: float = 0.05
    ema_decay: float = 0.995
    num_signals: int = 10_000
    num_points: int = 16_384
    num_heldout: int = 100
    heldout_steps: int = 200
    heldout_points: int = 2048
    seed: int = 0

    def __post_init__(self):
        if not self.stages:
            raise UserError("base training has no stages", allowed="at least one stage", do="set stages")

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)


class BaseFieldTask(L.LightningModule):
    """Trains a base field and one latent per training signal.

    Args:
        config: Architecture and training.
        num_signals: Number of training signals.
        in_features: Coordinates of a point.
        out_features: Channels of a value.
        loss: Of a value.
    """

    def __init__(
        self,
        config: BaseTrainingConfig,
        num_signals: int,
        in_features: int,
        out_features: int,
        loss: PointLoss = SQUARED,
    ):
        super().__init__()
        self.config, self.loss = config, loss
        self.generator = torch.Generator().manual_seed(config.seed)
        self.base = BaseField(config.model, in_features, out_features, self.generator)
        self.ema = exponential_average(self.base, config.ema_decay)
        self.latents = nn.Embedding(num_signals, config.model.latent_size)
        start = torch.randn(self.latents.weight.shape, generator=self.generator) * 0.1
        self.latents.weight.data.copy_(start)

    def training_step(self, batch: SignalBatch) -> Tensor:
        """Reconstruction error plus the penalty on the latents."""
        latents = self.latents(batch.indices)
        noise = torch.randn(latents.shape, generator=self.generator).to(latents) * self.config.latent_noise
        error = mean_losses(self.loss, self.base(latents + noise, batch.coords), batch).mean()
        self.log("train_loss", error, prog_bar=True)
        return error + self.config.latent_penalty * latents.square().mean()

    def on_train_batch_end(self, *_) -> None:
        """Follow the parameters with their moving average."""
        self.ema.update_parameters(self.base)

    def configure_optimizers(self):
        """Adam with a short warm-up and cosine decay over all stages."""
        groups = [
            {"params": self.base.parameters(), "lr": self.config.learning_rate},
            {"params": self.latents.parameters(), "lr": self.config.latent_learning_rate},
        ]
        optimizer = torch.optim.Adam(groups, fused=self.device.type != "mps")
        total = self.config.num_steps
        return scheduled(optimizer, WARMUP * total, total)

    def finished_base(self) -> BaseField:
        """The averaged base field, the mean modulation of the training latents folded in, frozen."""
        base = self.ema.module
        base.fold_mean_modulation(self.latents.weight.detach())
        return base.eval().requires_grad_(False)


def mean_losses(loss: PointLoss, values: Tensor, batch: SignalBatch) -> Tensor:
    """Mean loss ``(B,)`` of each signal of a batch, for found values ``(B, P, C)``."""
    each = loss(values, batch.values)
    return (each if batch.weights is None else each * batch.weights.unsqueeze(-1)).mean(dim=(1, 2))


def fit_latents(
    base: BaseField, batch: SignalBatch, *, steps: int, learning_rate: float, loss: PointLoss = SQUARED
) -> Tensor:
    """Fit latents of unseen signals with the base field frozen.

    Args:
        base: A trained base field.
        batch: The signals.
        steps: Adam steps, with cosine decay to zero.
        learning_rate: Step size at the start.
        loss: Of a value.

    Returns:
        Latents ``(N, Z)``, started at zero.
    """
    latents = torch.zeros(len(batch.values), base.config.latent_size, device=batch.values.device, requires_grad=True)
    optimizer = torch.optim.Adam([latents], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # The signals are independent: the sum of their losses fits each on its own.
    for _ in range(steps):
        optimizer.zero_grad()
        mean_losses(loss, base(latents, batch.coords), batch).sum().backward()
        optimizer.step()
        schedule.step()
    return latents.detach()


@torch.no_grad()
def latent_psnr(base: BaseField, latents: Tensor, examples: Examples, num_points: int | None = None) -> float:
    """Mean PSNR in dB of the examples as their ``latents (N, Z)`` decode; on no grid at the first so many points."""
    scores = []
    for start in range(0, len(latents), 100):
        batch = examples.points(slice(start, start + 100), num_points)
        values = in_quantity(base(latents[start : start + 100], batch.coords), examples.form)
        scores.append(psnr(values, batch.values, examples.form.value_range))
    return float(torch.cat(scores).mean())
