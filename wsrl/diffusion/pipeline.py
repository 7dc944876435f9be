"""Sampling weights: the diffusers pipeline that a trained diffusion model is saved as.

Letters: N samples, V numbers of a vector.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.space import WeightSpace
from wsrl.encoders.autoencoder import WeightAutoencoder
from wsrl.errors import UserError
from wsrl.store.field import Field

Labels = None | str | int | Sequence[str | int] | Tensor


@dataclass
class WeightSamples(BaseOutput):
    """What a pipeline returns.

    Attributes:
        weights: Sampled fields ``(N, *shape)``, on the CPU.
        images: One picture per field; empty where the fields are not pictures.
        fields: One callable per sample, from coordinates ``(P, D)`` to values ``(P, C)``.
    """

    weights: dict[str, Tensor]
    images: list[Image.Image]
    fields: list[Field]


Prediction = Callable[[Tensor, Tensor], Tensor]
"""From noisy vectors ``(N, V)`` and a timestep to what the sampler takes."""


class WeightDiffusionPipeline(DiffusionPipeline):
    """Samples fields, as weights and as pictures.

    ``WeightDiffusionPipeline.from_pretrained(folder)`` needs nothing but the folder: the base field is inside. Another
    sampler is put in with ``pipeline.scheduler = sampler("dpm++", pipeline.scheduler)`` or as with any pipeline of
    diffusers. A bar over all denoising steps is shown after ``pipeline.set_progress_bar_config(disable=False)``.

    Args:
        transformer: The denoiser (its averaged weights).
        scheduler: The sampler.
        space: From weights to the vectors that are denoised, and back.
        decoder: Representation and base field.
    """

    def __init__(
        self,
        transformer: WeightTransformer,
        scheduler: SchedulerMixin,
        space: WeightSpace | WeightAutoencoder,
        decoder: FieldDecoder,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, space=space, decoder=decoder)
        self.set_progress_bar_config(disable=True)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that can be asked for, in the order of their numbers."""
        return list(self.transformer.config.classes)

    @torch.no_grad()
    def __call__(
        self,
        num: int,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        num_inference_steps: int = 50,
        batch_size: int = 256,
        size: Sequence[int] | None = None,
    ) -> WeightSamples:
        """Draw fields.

        The noise of sample ``i`` depends on the generator and on ``i`` alone: asking for more samples keeps the first
        ones, and the batch size changes them by rounding only (but for samplers that draw noise at each step).

        Args:
            num: Number of fields.
            class_labels: One class for all or one for each, by name or number; None asks for no class.
            guidance_scale: 1 follows the class as it was learned, more exaggerates it, 0 ignores it.
            generator: Source of the noise; None draws from torch's own.
            num_inference_steps: Denoising steps; at most the number of training timesteps.
            batch_size: Fields that are denoised together; memory grows with it.
            size: Height and width of the pictures; None takes the grid of the data.

        Returns:
            Weights, pictures and callables.

        Raises:
            UserError: If a number is out of range, or a class is unknown.
        """
        self._check(num, num_inference_steps, batch_size)
        labels = self.class_numbers(class_labels, num)
        starts = range(0, num, batch_size)
        parts = []
        with self.progress_bar(total=len(starts) * num_inference_steps) as bar:
            for start in starts:
                count = min(batch_size, num - start)
                predict = self.predictor(None if labels is None else labels[start : start + count], guidance_scale)
                noise = self.noise(count, generator)
                parts.append(self.denoise(noise, predict, num_inference_steps, generator=generator, advance=bar.update))
        return self.samples(torch.cat(parts), size, batch_size)

    def noise(self, num: int, generator: torch.Generator | None) -> Tensor:
        """Where sampling starts: vectors ``(N, V)``, drawn one after the other."""
        shape, device, dtype = (self.transformer.num_numbers,), self.transformer.device, self.transformer.dtype
        return torch.stack([randn_tensor(shape, generator, device, dtype) for _ in range(num)])

    def predictor(self, labels: Tensor | None, guidance_scale: float = 1.0) -> Prediction:
        """What the network predicts for fields of some classes.

        Args:
            labels: Class numbers ``(N,)``, or None for no class.
            guidance_scale: See :meth:`__call__`.

        Source: Ho and Salimans, arXiv 2207.12598, with 1 for the plain conditional model.
        """
        if labels is None:
            return self.transformer
        nothing = torch.full_like(labels, -1)

        def guided(vector: Tensor, timestep: Tensor) -> Tensor:
            if guidance_scale == 1.0:
                return self.transformer(vector, timestep, labels)
            both = self.transformer(torch.cat([vector, vector]), timestep, torch.cat([labels, nothing]))
            asked, plain = both.chunk(2)
            return plain + guidance_scale * (asked - plain)

        return guided

    def denoise(
        self,
        vector: Tensor,
        predict: Prediction,
        num_inference_steps: int,
        *,
        strength: float = 1.0,
        generator: torch.Generator | None = None,
        advance: Callable[[], object] = lambda: None,
    ) -> Tensor:
        """Vectors ``(N, V)`` by reverse diffusion of noisy vectors.

        Args:
            vector: Noisy vectors ``(N, V)``, of the noise of the first step that is taken.
            predict: What the network predicts.
            num_inference_steps: Steps from pure noise.
            strength: Share of them that is taken, the last ones.
            generator: Source of the noise of samplers that draw some at each step.
            advance: Called after each step.
        """
        self.scheduler.set_timesteps(num_inference_steps, device=vector.device)
        options = self.step_options(generator)
        for timestep in self.timesteps_taken(strength):
            prediction = predict(self.scheduler.scale_model_input(vector, timestep), timestep)
            vector = self.scheduler.step(prediction, timestep, vector, **options).prev_sample
            advance()
        return vector

    def step_options(self, generator: torch.Generator | None) -> dict:
        """What the sampler's ``step`` takes beside the prediction: a source of noise if it draws any."""
        takes_noise = "generator" in inspect.signature(self.scheduler.step).parameters
        return {"generator": generator} if takes_noise else {}

    def timesteps_taken(self, strength: float) -> Tensor:
        """The last share of the timesteps that are set, one at least."""
        steps = self.scheduler.timesteps
        return steps[len(steps) - max(1, round(strength * len(steps))) :]

    def samples(self, vectors: Tensor, size: Sequence[int] | None = None, batch_size: int = 256) -> WeightSamples:
        """Fields of vectors ``(N, V)`` as weights, pictures and callables."""
        parts = [self.space.decode(vector) for vector in vectors.split(batch_size)]
        return self.samples_of({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, size)

    def samples_of(self, weights: dict[str, Tensor], size: Sequence[int] | None = None) -> WeightSamples:
        """Fields ``(N, *shape)`` as weights, pictures and callables."""
        images = self.decoder.images(weights, size)
        here = {name: tensor.cpu() for name, tensor in weights.items()}
        num = len(next(iter(here.values())))
        fields = [self.decoder.field({name: tensor[i] for name, tensor in here.items()}) for i in range(num)]
        return WeightSamples(weights=here, images=images, fields=fields)

    def class_numbers(self, labels: Labels, num: int) -> Tensor | None:
        """Class numbers ``(N,)`` of what a user asks for; None for no class.

        Raises:
            UserError: The model has no classes, a class is unknown, or there are too few or too many labels.
        """
        if labels is None:
            return None
        names = self.classes
        if not names:
            raise UserError("this model has no classes", allowed="class_labels=None", do="train with model.conditional")
        single = isinstance(labels, (str, int))
        given = [labels] * num if single else [x if isinstance(x, str) else int(x) for x in labels]
        numbers = [names.index(label) if label in names else label for label in given]
        unknown = [label for label in numbers if not isinstance(label, int) or not 0 <= label < len(names)]
        if unknown:
            allowed = f"0 to {len(names) - 1}, or one of: {', '.join(names)}"
            raise UserError(f"class {unknown[0]!r} is unknown", allowed=allowed, do="choose another class")
        if len(numbers) != num:
            raise UserError(f"{len(numbers)} class labels are given for {num} fields", allowed="one, or one for each")
        return torch.tensor(numbers, device=self.transformer.device)

    def _check(self, num: int, num_inference_steps: int, batch_size: int) -> None:
        most = self.scheduler.config.num_train_timesteps
        bounds = (
            ("num", num, None),
            ("num_inference_steps", num_inference_steps, most),
            ("batch_size", batch_size, None),
        )
        for name, value, top in bounds:
            if value < 1 or (top is not None and value > top):
                allowed = "at least 1" if top is None else f"1 to {top}"
                raise UserError(f"{name} is {value}", allowed=allowed, do=f"choose another {name}")
