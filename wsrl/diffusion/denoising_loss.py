"""The noise process and the loss of a diffusion model over weights, apart from network and trainer.

Letters: B fields, V length of a vector.

| paper (DDPM, arXiv 2006.11239) | here |
|---|---|
| x_0, x_t | clean, noisy |
| epsilon | noise |
| v = sqrt(a_t) epsilon - sqrt(1 - a_t) x_0 (arXiv 2202.00512) | target with ``v_prediction`` |
| SNR(t) = a_t / (1 - a_t), gamma (min-SNR, arXiv 2303.09556) | ratio, ``min_snr_gamma`` |
"""

import torch
from diffusers import DDPMScheduler, SchedulerMixin
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.options import check_values, one_of

PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")
BETA_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")
BETA_RANGE = (1e-4, 0.02)
"""First and last variance of the noise of a step (DDPM); named, since schedulers of diffusers have other defaults."""


def training_scheduler(
    *, num_train_timesteps: int = 1000, beta_schedule: str = "squaredcos_cap_v2", prediction_type: str = "v_prediction"
) -> DDPMScheduler:
    """The noise process. Weights are not pixels: nothing is clipped to [-1, 1] and nothing thresholded.

    Raises:
        UserError: If a name is unknown, or if noise prediction is asked for with the cosine schedule, whose last
            steps hold no signal, so that a noise prediction says nothing about the weights there.
    """
    names = {"prediction_type": prediction_type, "beta_schedule": beta_schedule}
    check_values(names, prediction_type=one_of(*PREDICTION_TYPES), beta_schedule=one_of(*BETA_SCHEDULES))
    if prediction_type == "epsilon" and beta_schedule == "squaredcos_cap_v2":
        raise UserError(
            "prediction_type 'epsilon' cannot be sampled in few steps with beta_schedule 'squaredcos_cap_v2'",
            allowed="epsilon with linear or scaled_linear, v_prediction and sample with any",
            do="set beta_schedule to linear",
        )
    return DDPMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule=beta_schedule,
        beta_start=BETA_RANGE[0],
        beta_end=BETA_RANGE[1],
        prediction_type=prediction_type,
        clip_sample=False,
        thresholding=False,
        timestep_spacing="trailing",
    )


class DenoisingLoss:
    """Mean squared error of the predicted velocity (or noise, or clean vector) at random timesteps.

    Timesteps are stratified over the batch: each is uniform, and together they cover the range evenly, which lowers
    the variance of the gradient and not its mean.

    Args:
        scheduler: The noise process, which also says what is predicted.
        min_snr_gamma: Weigh each timestep by the smaller of its signal-to-noise ratio and this number, as seen by the
            clean vector; None leaves the weight of a timestep at one.
    """

    def __init__(self, scheduler: DDPMScheduler, min_snr_gamma: float | None = None):
        self.scheduler = scheduler
        self.min_snr_gamma = min_snr_gamma

    def __call__(
        self, model: nn.Module, batch: Tensor, generator: torch.Generator, class_labels: Tensor | None = None
    ) -> Tensor:
        """Loss of standardised vectors.

        Args:
            model: Callable on noisy vectors ``(B, V)`` and timesteps ``(B,)``, and on class numbers where given.
            batch: Clean vectors ``(B, V)``.
            generator: Source of timesteps and noise, on the device of the batch.
            class_labels: Class numbers ``(B,)``, -1 for none; None for a model without classes.

        Returns:
            One number; without weights, 1 is what predicting zero scores on noise.

        Source: Ho et al. 2020, equation 14; Hang et al. 2023, section 3.4.
        """
        steps = self.scheduler.config.num_train_timesteps
        offsets = torch.rand(len(batch), generator=generator, device=batch.device)
        # One timestep in each B-th of the process.
        shares = (torch.arange(len(batch), device=batch.device) + offsets) / len(batch)  # (B,)
        timesteps = (shares * steps).long().clamp_max(steps - 1)
        # x_t of the forward process, and the error of what is predicted there.
        noise = torch.randn(batch.shape, generator=generator, device=batch.device, dtype=batch.dtype)
        noisy = self.scheduler.add_noise(batch, noise, timesteps)
        condition = () if class_labels is None else (class_labels,)
        target = self._target(batch, noise, timesteps)  # (B, V)
        error = (model(noisy, timesteps, *condition) - target).square().mean(dim=1)  # (B,)
        return (self._weights(timesteps) * error).mean()

    def _target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.scheduler.get_velocity(clean, noise, timesteps)
        return noise if kind == "epsilon" else clean

    def _weights(self, timesteps: Tensor) -> Tensor:
        """Weight ``(B,)`` of each timestep's error; all predictions then have the same loss of the clean vector."""
        if self.min_snr_gamma is None:
            return torch.ones((), device=timesteps.device)
        kept = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        ratio = kept / (1 - kept)
        of_clean = {"v_prediction": ratio + 1, "epsilon": ratio, "sample": 1.0}[self.scheduler.config.prediction_type]
        return ratio.clamp_max(self.min_snr_gamma) / of_clean


def clean_and_noise(
    process: SchedulerMixin, prediction: Tensor, noisy: Tensor, timestep: Tensor
) -> tuple[Tensor, Tensor]:
    """What a prediction says of the clean vectors and of the noise in noisy ones; differentiable.

    Args:
        process: Any scheduler of diffusers; its noise process and its kind of prediction are taken.
        prediction: What a network predicts ``(B, V)``.
        noisy: The noisy vectors ``(B, V)``.
        timestep: Their timestep, one for all.

    Returns:
        Clean vectors and noise, ``(B, V)`` each.

    Source: Salimans and Ho, arXiv 2202.00512, appendix D.
    """
    kept = process.alphas_cumprod.to(noisy)[timestep]
    signal, spread = kept.sqrt(), (1 - kept).sqrt()
    kind = process.config.prediction_type
    if kind == "v_prediction":
        return signal * noisy - spread * prediction, spread * noisy + signal * prediction
    if kind == "epsilon":
        return (noisy - spread * prediction) / signal, prediction
    return prediction, (noisy - signal * prediction) / spread
