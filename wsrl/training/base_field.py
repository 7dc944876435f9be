"""Training of the base field: a variational auto-decoder over many signals, from coarse grids to full ones.

Letters: N signals, B signals of a batch, P points, C channels, Z latent size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wsrl.errors import UserError
from wsrl.fields.base import BaseField, BaseFieldConfig
from wsrl.signals.fidelity import psnr
from wsrl.signals.signal import grid_coords


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of progressive training.

    Attributes:
        resolution: Share of the full grid along each axis, in (0, 1].
        batch_size: Signals of a step.
        steps: Number of optimisation steps.
    """

    resolution: float = 1.0
    batch_size: int = 64
    steps: int = 2000


@dataclass(frozen=True, kw_only=True)
class BaseTrainingConfig:
    """How a base field is trained.

    Attributes:
        model: Architecture.
        stages: Stages in order: large batches on coarse grids first, small ones on the full grid last.
        learning_rate: Peak step size of the network's Adam.
        latent_learning_rate: Peak step size of the latents' Adam.
        latent_penalty: The lambda in ``L_recon + lambda ||z||^2``, with the mean over the numbers of a latent.
        latent_noise: Deviation of the normal noise that is added to a latent in training.
        ema_decay: Decay of the moving average of the network's parameters, which becomes the base field.
        num_signals: Number of training signals, at most.
        num_heldout: Signals outside training whose latents are fitted with the base frozen.
        heldout_steps: Steps of that fit.
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
    num_heldout: int = 100
    heldout_steps: int = 200
    seed: int = 0

    def __post_init__(self):
        if not self.stages:
            raise UserError("base training has no stages", allowed="at least one stage", do="set stages")
        for stage in self.stages:
            if not 0 < stage.resolution <= 1 or stage.batch_size < 1 or stage.steps < 1:
                raise UserError(
                    f"{stage} cannot be trained",
                    allowed="resolution in (0, 1], batch_size and steps of at least 1",
                    do="mend that stage",
                )

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def coarse_grid(values: Tensor, grid: tuple[int, ...], resolution: float) -> tuple[Tensor, Tensor]:
    """Signals on a coarser grid, each cell the mean of those it covers.

    Args:
        values: Signals ``(N, P, C)`` on ``grid``.
        grid: Shape of the full grid.
        resolution: Share of the grid along each axis; at least two cells remain.

    Returns:
        Coordinates ``(P', D)`` and values ``(N, P', C)``.
    """
    coarse = tuple(max(min(n, 2), round(n * resolution)) for n in grid)
    if coarse == grid:
        return grid_coords(grid), values
    cells = values.mT.reshape(values.shape[0], values.shape[2], *grid)
    return grid_coords(coarse), F.interpolate(cells, size=coarse, mode="area").flatten(2).mT.contiguous()


class SignalBatches:
    """Shuffled batches of the stages, one pass; each item is (indices ``(B,)``, coords, values ``(B, P, C)``)."""

    def __init__(self, values: Tensor, grid: tuple[int, ...], stages: Sequence[Stage], generator: torch.Generator):
        self.values, self.grid, self.stages, self.generator = values, grid, stages, generator

    def __len__(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for stage in self.stages:
            coords, values = coarse_grid(self.values, self.grid, stage.resolution)
            order = torch.empty(0, dtype=torch.long)
            size = min(stage.batch_size, len(values))
            for _ in range(stage.steps):
                if len(order) < size:
                    order = torch.cat([order, torch.randperm(len(values), generator=self.generator)])
                indices, order = order[:size], order[size:]
                yield indices, coords, values[indices]


class BaseFieldTask(L.LightningModule):
    """Trains a base field and one latent per training signal.

    Args:
        config: Architecture and training.
        num_signals: Number of training signals.
        in_features: Coordinates of a point.
        out_features: Channels of a value.
    """

    def __init__(self, config: BaseTrainingConfig, num_signals: int, in_features: int, out_features: int):
        super().__init__()
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.base = BaseField(config.model, in_features, out_features, self.generator)
        self.ema = AveragedModel(self.base, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        self.latents = nn.Embedding(num_signals, config.model.latent_size)
        start = torch.randn(self.latents.weight.shape, generator=self.generator) * 0.1
        self.latents.weight.data.copy_(start)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Reconstruction error plus the penalty on the latents."""
        indices, coords, values = batch
        latents = self.latents(indices)
        noise = torch.randn(latents.shape, generator=self.generator).to(latents) * self.config.latent_noise
        error = F.mse_loss(self.base(latents + noise, coords), values)
        self.log("train_mse", error, prog_bar=True)
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
        rates = [group["lr"] for group in groups]
        total = self.config.num_steps
        warmup = min(0.9, max(0.05, 2 / total))  # OneCycleLR divides by zero where the rise is a single step
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=rates, total_steps=total, pct_start=warmup, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def finished_base(self) -> BaseField:
        """The averaged base field, the mean modulation of the training latents folded in, frozen."""
        base = self.ema.module
        base.fold_mean_modulation(self.latents.weight.detach())
        return base.eval().requires_grad_(False)


def fit_latents(base: BaseField, coords: Tensor, values: Tensor, *, steps: int, learning_rate: float) -> Tensor:
    """Fit latents of unseen signals with the base field frozen.

    Args:
        base: A trained base field.
        coords: Points ``(P, D)``.
        values: Signals ``(N, P, C)``.
        steps: Adam steps, with cosine decay to zero.
        learning_rate: Step size at the start.

    Returns:
        Latents ``(N, Z)``, started at zero.
    """
    latents = torch.zeros(len(values), base.config.latent_size, device=values.device, requires_grad=True)
    optimizer = torch.optim.Adam([latents], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (base(latents, coords) - values).square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    return latents.detach()


@torch.no_grad()
def latent_psnr(base: BaseField, latents: Tensor, coords: Tensor, values: Tensor) -> float:
    """Mean PSNR in dB of the signals ``values (N, P, C)`` in [0, 1] as their ``latents (N, Z)`` decode."""
    scores = [psnr(base(z, coords), target, (0.0, 1.0)) for z, target in zip(latents.split(100), values.split(100))]
    return float(torch.cat(scores).mean())
