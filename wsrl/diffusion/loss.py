"""The noise process and the loss of a diffusion model over weights, apart from network and trainer.

Letters: B fields, V trainable weights.

| paper (DDPM, arXiv 2006.11239) | here |
|---|---|
| x_0, x_t | clean, noisy |
| epsilon | noise |
| v = sqrt(a_t) epsilon - sqrt(1 - a_t) x_0 (arXiv 2202.00512) | target with ``v_prediction`` |
"""

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from wsrl.errors import UserError

PREDICTION_TYPES = ("v_prediction", "epsilon")
BETA_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")


def training_scheduler(
    *, num_train_timesteps: int = 1000, beta_schedule: str = "squaredcos_cap_v2", prediction_type: str = "v_prediction"
) -> DDPMScheduler:
    """The noise process. Weights are not pixels: nothing is clipped to [-1, 1] and nothing thresholded.

    Raises:
        UserError: If a name is unknown, or if noise prediction is asked for with the cosine schedule, whose last
            steps hold no signal, so that a noise prediction says nothing about the weights there.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise UserError(f"prediction_type {prediction_type!r} is unknown", allowed=", ".join(PREDICTION_TYPES))
    if beta_schedule not in BETA_SCHEDULES:
        raise UserError(f"beta_schedule {beta_schedule!r} is unknown", allowed=", ".join(BETA_SCHEDULES))
    if prediction_type == "epsilon" and beta_schedule == "squaredcos_cap_v2":
        raise UserError(
            "prediction_type 'epsilon' cannot be sampled in few steps with beta_schedule 'squaredcos_cap_v2'",
            allowed="epsilon with linear or scaled_linear, v_prediction with any",
            do="set beta_schedule to linear",
        )
    return DDPMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        thresholding=False,
        timestep_spacing="trailing",
    )


def sampling_scheduler(training: DDPMScheduler) -> DDIMScheduler:
    """The deterministic sampler of a noise process; its steps start at the last timestep, which is pure noise."""
    return DDIMScheduler.from_config(
        training.config, clip_sample=False, thresholding=False, timestep_spacing="trailing", set_alpha_to_one=True
    )


class DenoisingLoss:
    """Mean squared error of the predicted noise (or velocity) at random timesteps.

    Timesteps are stratified over the batch: each is uniform, and together they cover the range evenly, which lowers
    the variance of the gradient and not its mean.

    Args:
        scheduler: The noise process, which also says what is predicted.
    """

    def __init__(self, scheduler: DDPMScheduler):
        self.scheduler = scheduler

    def __call__(self, model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of normalised weights.

        Args:
            model: Callable on noisy vectors ``(B, V)`` and timesteps ``(B,)``.
            batch: Clean normalised vectors ``(B, V)``.
            generator: Source of timesteps and noise, on the device of the batch.

        Returns:
            One number; 1 is what predicting zero scores on noise.

        Source: Ho et al. 2020, equation 14.
        """
        steps = self.scheduler.config.num_train_timesteps
        offsets = torch.rand(len(batch), generator=generator, device=batch.device)
        places = (torch.arange(len(batch), device=batch.device) + offsets) / len(batch)
        timesteps = (places * steps).long().clamp_max(steps - 1)
        noise = torch.randn(batch.shape, generator=generator, device=batch.device, dtype=batch.dtype)
        noisy = self.scheduler.add_noise(batch, noise, timesteps)
        if self.scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self.scheduler.get_velocity(batch, noise, timesteps)
        return mse_loss(model(noisy, timesteps), target)
