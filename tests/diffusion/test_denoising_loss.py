"""The noise process and the loss, against their formulas and on a distribution whose moments are known."""

import pytest
import torch
from torch import nn

from wsrl.diffusion.denoising_loss import DenoisingLoss, training_scheduler
from wsrl.diffusion.samplers import SAMPLERS, sampler
from wsrl.errors import UserError

OPTIONS = [
    {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "epsilon", "beta_schedule": "linear"},
]


def answer(scheduler, clean, noise, timesteps):
    """What a network that knows the clean vector and the noise predicts."""
    kept = scheduler.alphas_cumprod[timesteps]
    kept = kept.reshape(-1, *[1] * (clean.ndim - 1))
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
    return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[scheduler.config.prediction_type]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_model_that_knows_the_answer_has_no_loss(options):
    scheduler = training_scheduler(**options)
    clean = torch.full((32, 5), 0.7)
    alphas = scheduler.alphas_cumprod

    def model(noisy, timesteps):
        noise = (noisy - alphas[timesteps, None].sqrt() * clean) / (1 - alphas[timesteps, None]).sqrt()
        return answer(scheduler, clean, noise, timesteps)

    loss = DenoisingLoss(scheduler)(model, clean, torch.Generator().manual_seed(0))
    assert loss < 1e-6
    wrong = DenoisingLoss(scheduler)(lambda noisy, timesteps: torch.zeros_like(noisy), clean, torch.Generator())
    assert wrong > 0.3


def test_timesteps_cover_the_range_and_the_generator_decides():
    seen = []

    def model(noisy, timesteps):
        seen.append(timesteps)
        return noisy

    loss = DenoisingLoss(training_scheduler(num_train_timesteps=100))
    for seed in (1, 1, 2):
        loss(model, torch.zeros(50, 2), torch.Generator().manual_seed(seed))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0] // 2, torch.arange(50))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_is_clipped_and_the_samplers_start_from_pure_noise(name, options):
    training = training_scheduler(**options)
    sampling = sampler(name, training)
    for scheduler in (training, sampling):
        assert not scheduler.config.get("clip_sample") and scheduler.config.thresholding is False
        assert scheduler.config.prediction_type == options["prediction_type"]
    sampling.set_timesteps(10)
    assert sampling.timesteps[0] == 999
    assert training.alphas_cumprod[-1] < 1e-4
    again = type(sampling).from_config(sampling.config)  # as a user of diffusers swaps samplers
    assert again.config.timestep_spacing == "trailing" and not again.config.get("clip_sample")


@pytest.mark.parametrize("options", OPTIONS)
def test_min_snr_weights_are_those_of_the_clean_vector(options):
    """Whatever is predicted, an error of the clean vector counts min(SNR, gamma) times."""
    scheduler, seen = training_scheduler(**options), []
    clean, error = torch.zeros(64, 3), 0.5

    def model(noisy, timesteps):
        kept = scheduler.alphas_cumprod[timesteps, None]
        seen.append((kept / (1 - kept)).squeeze(1))
        wrong = clean + error
        noise = (noisy - kept.sqrt() * wrong) / (1 - kept).sqrt()
        return answer(scheduler, wrong, noise, timesteps)

    loss = DenoisingLoss(scheduler, min_snr_gamma=5.0)(model, clean, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, (seen[0].clamp_max(5.0) * error**2).mean(), rtol=1e-3, atol=0)


def test_names_that_are_unknown_or_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="prediction_type is 'x0'"):
        training_scheduler(prediction_type="x0")
    with pytest.raises(UserError, match="beta_schedule is 'cubic'"):
        training_scheduler(beta_schedule="cubic")
    with pytest.raises(UserError, match="set beta_schedule to linear"):
        training_scheduler(prediction_type="epsilon")


class PointNetwork(nn.Module):
    """A small network on points, to test the process without the transformer."""

    def __init__(self, size=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size + 4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, size)
        )

    def forward(self, points, timesteps):
        time = timesteps.reshape(-1, 1).expand(len(points), 1) / 1000
        waves = [(time * scale).sin() for scale in (1, 3)] + [(time * scale).cos() for scale in (1, 3)]
        return self.layers(torch.cat([points, *waves], dim=1))


def draw(scheduler, model, num, size, generator, name="ddim", steps=50):
    sampling = sampler(name, scheduler)
    sampling.set_timesteps(steps)
    sample = torch.randn(num, size, generator=generator)
    options = {} if name == "ddim" else {"generator": generator}
    with torch.no_grad():
        for timestep in sampling.timesteps:
            sample = sampling.step(model(sample, timestep), timestep, sample, **options).prev_sample
    return sample


@pytest.mark.parametrize("name, steps", [("ddim", 50), ("ddpm", 250), ("dpm++", 25)])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_best_denoiser_of_a_gaussian_samples_that_gaussian(options, name, steps):
    scheduler = training_scheduler(**options)
    mean, std = torch.tensor([3.0, -2.0]), torch.tensor([0.3, 4.0])

    def model(noisy, timesteps):
        signal, spread = scheduler.alphas_cumprod[timesteps].sqrt(), (1 - scheduler.alphas_cumprod[timesteps]).sqrt()
        noise = spread * (noisy - signal * mean) / (signal**2 * std**2 + spread**2)
        return answer(scheduler, (noisy - spread * noise) / signal, noise, timesteps)

    sample = draw(scheduler, model, 4000, 2, torch.Generator().manual_seed(0), name, steps)
    torch.testing.assert_close(sample.mean(0) / std, mean / std, atol=0.1, rtol=0)
    torch.testing.assert_close(sample.std(0) / std, torch.ones(2), atol=0.1, rtol=0)


@pytest.fixture(scope="module")
def trained_on_a_mixture():
    """A network trained on 0.3 N(-1.2, 0.2) + 0.7 N(0.6, 0.4) in one dimension."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    scheduler, model = training_scheduler(), PointNetwork(1)
    loss, optimizer = DenoisingLoss(scheduler, min_snr_gamma=5.0), torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        left = torch.rand(512, 1, generator=generator) < 0.3
        points = torch.randn(512, 1, generator=generator)
        points = torch.where(left, -1.2 + 0.2 * points, 0.6 + 0.4 * points)
        optimizer.zero_grad()
        loss(model, points, generator).backward()
        optimizer.step()
        schedule.step()
    return scheduler, model


@pytest.mark.parametrize("name, steps", [("ddim", 50), ("ddpm", 250), ("dpm++", 25)])
def test_each_sampler_recovers_the_moments_of_a_mixture(trained_on_a_mixture, name, steps):
    scheduler, model = trained_on_a_mixture
    sample = draw(scheduler, model, 8000, 1, torch.Generator().manual_seed(1), name, steps)
    mean = 0.3 * -1.2 + 0.7 * 0.6
    variance = 0.3 * (0.2**2 + 1.2**2) + 0.7 * (0.4**2 + 0.6**2) - mean**2
    third = 0.3 * (-(1.2**3) - 3 * 1.2 * 0.2**2) + 0.7 * (0.6**3 + 3 * 0.6 * 0.4**2)
    assert abs(float(sample.mean()) - mean) < 0.08
    assert abs(float(sample.var()) / variance - 1) < 0.1
    assert abs(float((sample**3).mean()) - third) < 0.25
    assert 0.24 < float((sample < -0.5).float().mean()) < 0.36


def test_trained_on_two_blobs_it_samples_two_blobs():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    scheduler, model = training_scheduler(), PointNetwork()
    loss, optimizer = DenoisingLoss(scheduler), torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        side = torch.randint(2, (256, 1), generator=generator) * 2.0 - 1.0
        points = torch.cat([side, torch.zeros_like(side)], dim=1)
        points = points * 0.9 + torch.randn(256, 2, generator=generator) * torch.tensor([0.2, 1.0])
        optimizer.zero_grad()
        loss(model, points, generator).backward()
        optimizer.step()
        schedule.step()
    sample = draw(scheduler, model, 2000, 2, generator)
    right = sample[:, 0] > 0
    assert 0.4 < right.float().mean() < 0.6
    for blob, centre in ((sample[right], 0.9), (sample[~right], -0.9)):
        assert (blob.mean(0) - torch.tensor([centre, 0.0])).abs().max() < 0.15
        assert (blob.std(0) - torch.tensor([0.2, 1.0])).abs().max() < 0.15
