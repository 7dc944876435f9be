"""Around fields: variations of one, and interpolation from one to another in weights, in latents or along the ODE.

Letters: N fields, S steps of a path, V length of a vector.
"""

import torch
from torch import Tensor

from wsrl.diffusion.denoising_loss import clean_and_noise
from wsrl.diffusion.pipeline import Prediction, WeightDiffusionPipeline
from wsrl.diffusion.samplers import sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.encoders.autoencoder import WeightAutoencoder
from wsrl.options import Allowed, check_values

STRENGTH = Allowed("0 (the field itself) to 1 (a new one)", lambda strength: 0 <= strength <= 1)
EVALUATIONS = 4
"""Predictions for each step of the way to the noise: the step back has to lead where it came from."""


@torch.no_grad()
def variations(
    pipeline: WeightDiffusionPipeline,
    weights: dict[str, Tensor],
    num: int,
    *,
    strength: float,
    predict: Prediction,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Fields near a given one: it is noised in part and denoised again.

    Args:
        pipeline: The model.
        weights: The field ``(1, *shape)``, on the device of the pipeline.
        num: Number N of variations.
        strength: Share of the steps: 0 gives the field itself, 1 new samples, the same as without a field.
        predict: What the network predicts (:meth:`WeightDiffusionPipeline.predictor`).
        steps: Denoising steps from pure noise.
        generator: Source of the noise.

    Returns:
        Weights ``(N, *shape)``.

    Raises:
        UserError: The strength is out of range.

    Source: SDEdit, Meng et al., arXiv 2108.01073.
    """
    check_values({"strength": strength}, strength=STRENGTH)
    if strength * steps < 0.5:  # rounds to no step at all
        return {name: tensor.expand(num, *tensor.shape[1:]).clone() for name, tensor in weights.items()}
    noise = pipeline.noise(num, generator)
    pipeline.scheduler.set_timesteps(steps, device=noise.device)
    taken = pipeline.timesteps_taken(strength)
    noisy = noise  # (N, V)
    if len(taken) < len(pipeline.scheduler.timesteps):
        clean = pipeline.space.encode(weights).to(noise).expand_as(noise)
        noisy = pipeline.scheduler.add_noise(clean, noise, taken[:1])  # in the sizes of the sampler's own noise
    vectors = pipeline.denoise(noisy, predict, steps, strength=strength, generator=generator)
    return pipeline.space.decode(vectors)


@torch.no_grad()
def linear_interpolation(
    ends: dict[str, Tensor], num: int, space: WeightSpace | WeightAutoencoder | None = None
) -> dict[str, Tensor]:
    """Fields on the straight line between two.

    Args:
        ends: The two fields ``(2, *shape)``.
        num: Fields S on the line, ends included.
        space: Where the line is straight; None for the weights themselves.

    Returns:
        Weights ``(S, *shape)``; in a space, the first and the last are the ends as it decodes them.
    """
    shares = torch.linspace(0, 1, num)
    if space is None:
        return {
            name: torch.stack([torch.lerp(*tensor, float(share)) for share in shares]) for name, tensor in ends.items()
        }
    first, second = space.encode(ends)
    return space.decode(torch.stack([torch.lerp(first, second, float(share)) for share in shares]))


@torch.no_grad()
def ode_interpolation(
    pipeline: WeightDiffusionPipeline, ends: dict[str, Tensor], num: int, *, predict: Prediction, steps: int = 50
) -> dict[str, Tensor]:
    """Fields between two others through the noise of the model.

    Both fields are followed along the diffusion's ODE to their noise, the noise is interpolated on the sphere, and
    followed back in the same steps.

    Args:
        pipeline: The model.
        ends: The two fields ``(2, *shape)``, on the device of the pipeline.
        num: Fields S, ends included.
        predict: What the network predicts for any number of fields.
        steps: Steps in each direction.

    Returns:
        Weights ``(S, *shape)``; the first and the last are the ends as they come back from their noise.

    Source: DDIM, Song et al., arXiv 2010.02502, sections 4.3 and 5.3.
    """
    process = sampler("ddim", pipeline.scheduler)
    process.set_timesteps(steps)
    timesteps = process.timesteps.to(pipeline.device)
    first, second = noise_of(process, pipeline.space.encode(ends), predict, timesteps)
    noise = torch.stack([spherical(first, second, float(share)) for share in torch.linspace(0, 1, num)])
    vector = noise
    for timestep, later in zip(timesteps, [*timesteps[1:], None]):
        vector = _moved(process, vector, predict(vector, timestep), timestep, later)
    return pipeline.space.decode(vector)


def noise_of(process, vector: Tensor, predict: Prediction, timesteps: Tensor) -> Tensor:
    """The noise that deterministic sampling turns into given vectors.

    Each step solves for the vector that the sampler's own step would lead from, by iteration, so that the way back ends
    where the way out began up to what :data:`EVALUATIONS` leave.

    Args:
        process: A scheduler of diffusers, for its noise process and kind of prediction.
        vector: Clean vectors ``(N, V)``.
        predict: What the network predicts.
        timesteps: The timesteps of sampling, falling.

    Source: Pan et al., ICCV 2023, arXiv 2309.04907, equation 7.
    """
    rising = timesteps.flip(0)
    for earlier, timestep in zip([None, *rising[:-1]], rising):
        guess = vector
        for _ in range(EVALUATIONS):
            clean, noise = clean_and_noise(process, predict(guess, timestep), guess, timestep)
            came_to = _mixed(process, clean, noise, earlier)
            guess = guess + vector - came_to
        vector = guess
    return vector


def spherical(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point between two vectors ``(V,)`` on the great circle through both; lengths change in proportion.

    Args:
        first: Where the share is 0.
        second: Where it is 1.
        share: A number from 0 to 1.

    Source: Shoemake, SIGGRAPH 1985.
    """
    angle = torch.arccos(torch.cosine_similarity(first, second, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:  # the same direction, or opposite ones, between which there is no one circle
        return torch.lerp(first, second, share)
    length = torch.lerp(first.norm(), second.norm(), share)
    one, two = first / first.norm(), second / second.norm()
    return length * (((1 - share) * angle).sin() * one + (share * angle).sin() * two) / angle.sin()


def _moved(process, vector: Tensor, prediction: Tensor, timestep: Tensor, to: Tensor | None) -> Tensor:
    """One deterministic step of DDIM to another timestep; None for clean vectors."""
    return _mixed(process, *clean_and_noise(process, prediction, vector, timestep), to)


def _mixed(process, clean: Tensor, noise: Tensor, timestep: Tensor | None) -> Tensor:
    if timestep is None:
        return clean
    kept = process.alphas_cumprod.to(clean)[timestep]
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise
