"""Fields that agree with the known part of a signal and are the model's own elsewhere.

Letters: N fields, P known points, D coordinates, C channels, V length of a vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.diffusion.denoising_loss import clean_and_noise
from wsrl.diffusion.pipeline import Prediction, WeightDiffusionPipeline
from wsrl.errors import UserError
from wsrl.options import at_least, check_values

TINY = 1e-12


@dataclass(frozen=True)
class KnownPart:
    """What is known of a signal.

    Attributes:
        coords: Points ``(P, D)`` in [-1, 1].
        values: What the field has to be there ``(P, C)``; zero on the surface of a shape.
    """

    coords: Tensor
    values: Tensor

    def loss(self, pipeline: WeightDiffusionPipeline, vectors: Tensor) -> Tensor:
        """The fit loss ``(N,)`` of vectors ``(N, V)``, differentiable: the mean squared error at the known points."""
        representation = pipeline.decoder.representation.to(vectors.device)
        values = representation.evaluate(pipeline.space.decode(vectors), self.coords.to(vectors))  # (N, P, C)
        return (values - self.values.to(vectors)).square().mean(dim=(1, 2))


def complete(
    pipeline: WeightDiffusionPipeline,
    known: KnownPart,
    num: int,
    *,
    predict: Prediction,
    strength: float = 1.0,
    refinements: int = 50,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples that agree with the known part of a signal.

    At each step the clean vector is estimated from the prediction and decoded, and the gradient of its fit loss with
    respect to the noisy vector moves the step. After the last step the vectors themselves are moved down the fit loss.

    Args:
        pipeline: The model.
        known: The known part.
        num: Number N of fields.
        predict: What the network predicts (:meth:`WeightDiffusionPipeline.predictor`).
        strength: How far the known part pulls at each step; 0 leaves plain samples, also without refinements.
        refinements: Gradient steps on the sampled vectors.
        steps: Denoising steps.
        generator: Source of the noise; the noise is that of plain samples.

    Returns:
        Vectors ``(N, V)``.

    Raises:
        UserError: A number is negative.

    Source: Diffusion posterior sampling, Chung et al., arXiv 2209.14687, algorithm 1. Deviation: the length of a step
    is Polyak's for a loss that can reach zero, and at most the angle that the step turns times the length of the noise,
    instead of a constant over the square root of the loss, so that one strength suits all models.
    """
    check_values({"strength": strength, "refinements": refinements}, strength=at_least(0), refinements=at_least(0))
    vector = pipeline.noise(num, generator)  # (N, V)
    pipeline.scheduler.set_timesteps(steps, device=vector.device)
    _check_sampler(pipeline)
    options = pipeline.step_options(generator)
    longest = _step_lengths(pipeline.scheduler, pipeline.scheduler.timesteps).to(vector) * vector.shape[1] ** 0.5
    for timestep, most in zip(pipeline.scheduler.timesteps, longest):
        # A plain step of the sampler, then down the slope of the fit loss by the noisy vector.
        prediction, loss, slope = _pull(pipeline, known, predict, vector, timestep)
        after = pipeline.scheduler.step(prediction, timestep, vector, **options).prev_sample
        vector = after - strength * _polyak(loss, slope, most)
    return _refined(pipeline, known, vector, refinements if strength else 0)


def _check_sampler(pipeline: WeightDiffusionPipeline) -> None:
    """Refuse samplers in whose steps the angle from noise to clean does not follow from the timestep."""
    scheduler = pipeline.scheduler
    sizes_differ = abs(float(scheduler.init_noise_sigma) - 1) > TINY
    if sizes_differ or scheduler.order > 1 or len(scheduler.timesteps) > scheduler.num_inference_steps:
        raise UserError(
            f"{type(scheduler).__name__} cannot complete a known part",
            allowed="samplers with one timestep a step and noise of unit size, such as ddim, ddpm and dpm++",
            do='set pipeline.scheduler = sampler("ddim", pipeline.scheduler)',
        )


def _step_lengths(process, timesteps: Tensor) -> Tensor:
    """How far each step of sampling turns vectors of length one from noise to clean, in radians; together a quarter."""
    kept = process.alphas_cumprod[timesteps.cpu().long()].double()
    angles = torch.cat([kept.sqrt().arccos(), kept.new_zeros(1)])  # sqrt(a_t) is the cosine of the angle to clean
    return -angles.diff()


def _pull(
    pipeline: WeightDiffusionPipeline, known: KnownPart, predict: Prediction, noisy: Tensor, timestep: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction ``(N, V)``, fit loss ``(N,)`` of the clean estimate, and its slope ``(N, V)`` by the noisy vector."""
    with torch.enable_grad():
        # The known part's loss at the clean vectors that the noisy ones predict, and its slope by the noisy ones.
        noisy = noisy.detach().requires_grad_()
        prediction = predict(noisy, timestep)
        clean, _ = clean_and_noise(pipeline.scheduler, prediction, noisy, timestep)
        loss = known.loss(pipeline, clean)
        (slope,) = torch.autograd.grad(loss.sum(), noisy)
    return prediction.detach(), loss.detach(), slope


def _refined(pipeline: WeightDiffusionPipeline, known: KnownPart, vector: Tensor, refinements: int) -> Tensor:
    """Vectors ``(N, V)`` after gradient steps towards the known part; of all steps, the best of each."""
    best, least = vector, torch.full_like(vector[:, 0], torch.inf)
    for left in range(refinements, -1, -1):
        with torch.enable_grad():
            # Loss and slope at the vectors as they are.
            vector = vector.detach().requires_grad_()
            loss = known.loss(pipeline, vector)
            (slope,) = torch.autograd.grad(loss.sum(), vector)
        loss, vector = loss.detach(), vector.detach()
        # The best vector of each field so far is kept: a step may lead away.
        better = loss < least
        best, least = torch.where(better[:, None], vector, best), torch.where(better, loss, least)
        if left:
            vector = vector - _polyak(loss, slope, vector.norm(dim=1))
    return best


def _polyak(loss: Tensor, slope: Tensor, longest: Tensor) -> Tensor:
    """Steps ``(N, V)`` along slopes that would take a linear loss to zero, of a limited length ``(N,)``."""
    norm = slope.norm(dim=1).clamp_min(TINY)
    length = torch.minimum(loss / norm, longest)
    return (length / norm)[:, None] * slope
