"""Samplers by name: their order of accuracy, and names that there are not."""

import pytest
import torch

from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.diffusion.samplers import sampler
from wsrl.errors import UserError


def end_of(name, steps):
    """Where a sampler ends for a mixture of two Gaussians about -1 and 1, whose best denoiser is known."""
    process = training_scheduler()
    sampling = sampler(name, process)
    sampling.set_timesteps(steps)
    vector = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    for timestep in sampling.timesteps:
        kept = process.alphas_cumprod[timestep].double()
        total = 1 - kept + 0.25 * kept
        side = torch.tanh(kept.sqrt() * vector / total)  # expected centre
        clean = side + 0.25 * kept.sqrt() * (vector - kept.sqrt() * side) / total
        noise = (vector - kept.sqrt() * clean) / (1 - kept).sqrt()
        vector = sampling.step(kept.sqrt() * noise - (1 - kept).sqrt() * clean, timestep, vector).prev_sample
    return vector


def test_the_second_order_sampler_needs_fewer_steps():
    best = end_of("ddim", 1000)
    error = {name: float((end_of(name, 20) - best).abs().mean()) for name in ("ddim", "dpm++")}
    assert error["dpm++"] < 0.5 * error["ddim"]


def test_an_unknown_sampler_is_refused():
    with pytest.raises(UserError, match="sampler 'euler' is unknown"):
        sampler("euler", training_scheduler())
