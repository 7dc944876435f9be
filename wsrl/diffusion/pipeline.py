"""Sampling weights: the diffusers pipeline that a trained diffusion model is saved as.

Letters: N samples, V length of a vector.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.samplers import check_sampler, process_of, say_process
from wsrl.diffusion.space import WeightSpace
from wsrl.encoders.autoencoder import WeightAutoencoder
from wsrl.errors import UserError
from wsrl.options import at_least, between, check_values
from wsrl.store.field import Field

Labels = None | str | int | Sequence[str | int] | Tensor
Generators = None | torch.Generator | Sequence[torch.Generator]


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

    ``WeightDiffusionPipeline.from_pretrained(folder)`` needs nothing but the folder: the base field is inside; so does
    ``DiffusionPipeline.from_pretrained(folder)`` once this module is imported. Another sampler is put in with
    ``pipeline.scheduler = sampler("dpm++", pipeline.scheduler)`` or as with any pipeline of diffusers; one that cannot
    sample the model is refused (:func:`wsrl.diffusion.samplers.check_sampler`). In bfloat16 or float16 the denoiser
    computes in that type, the steps and the fields in float32. A bar over all denoising steps is shown after
    ``pipeline.set_progress_bar_config(disable=False)``.

    Args:
        transformer: The denoiser (its averaged weights).
        scheduler: The sampler.
        space: From weights to the vectors that are denoised, and back.
        decoder: Representation and base field.
        process: Noise process that the denoiser was trained on; None for that of ``scheduler``.
    """

    model_cpu_offload_seq = "transformer"
    _exclude_from_cpu_offload: list[str] = ["space", "decoder"]  # noqa: RUF012 (diffusers' own annotation)

    def __init__(
        self,
        transformer: WeightTransformer,
        scheduler: SchedulerMixin,
        space: WeightSpace | WeightAutoencoder,
        decoder: FieldDecoder,
        process: dict | None = None,
    ):
        super().__init__()
        check_sampler(scheduler, process)
        self.register_to_config(process=process or process_of(scheduler))
        self.register_modules(transformer=transformer, scheduler=scheduler, space=space, decoder=decoder)
        self.set_progress_bar_config(disable=True)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a scheduler that cannot sample the model is refused.

        Raises:
            UserError: The scheduler does not fit.
        """
        if name == "scheduler":
            check_sampler(value, self.config.process)
            say_process(value)
        super().__setattr__(name, value)

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
        generator: Generators = None,
        num_inference_steps: int = 50,
        batch_size: int = 256,
        size: Sequence[int] | None = None,
        *,
        eta: float = 0.0,
        latents: Tensor | None = None,
        callback_on_step_end: Callable[..., Mapping] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> WeightSamples | tuple:
        """Draw fields.

        The noise of sample ``i`` depends on the generator and on ``i`` alone: asking for more samples keeps the first
        ones, and the batch size changes them by rounding only (but for samplers that draw noise at each step). With a
        list of generators that holds for all samplers.

        Args:
            num: Number of fields.
            class_labels: One class for all or one for each, by name or number; None asks for no class.
            guidance_scale: 1 follows the class as it was learned, more exaggerates it, 0 ignores it.
            generator: Source of the noise, or a list with one for each field; None draws from torch's own.
            num_inference_steps: Denoising steps; at most the number of training timesteps.
            batch_size: Fields that are denoised together; memory grows with it.
            size: Height and width of the pictures; None takes the grid of the data.
            eta: Share of the noise of DDPM that DDIM draws at each step; other samplers have none.
            latents: Noise ``(N, V)`` of unit size to start from, instead of drawn noise.
            callback_on_step_end: Called as ``callback(pipeline, step, timestep, {"latents": vectors})`` after each
                step of each batch; ``latents`` of the mapping that it returns take the place of the vectors.
            callback_on_step_end_tensor_inputs: What the callback is given: ``latents``, or nothing.
            return_dict: Return a :class:`WeightSamples`; otherwise a tuple of its parts.

        Returns:
            Weights, pictures and callables.

        Raises:
            UserError: If a number is out of range, a class is unknown, or noise or generators are not one for each.
        """
        self._check(num, num_inference_steps, batch_size)
        noise = self.noise(num, generator) if latents is None else self._checked_noise(num, latents)  # (N, V)
        after_step = _after_step(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        options = {"generator": generator, "eta": eta, "after_step": after_step}
        predictions = (self.class_numbers(class_labels, num), guidance_scale)
        vectors = self._denoise_batches(noise, *predictions, num_inference_steps, batch_size, options)  # (N, V)
        self.maybe_free_model_hooks()
        samples = self.samples(vectors, size, batch_size)
        return samples if return_dict else (samples.weights, samples.images, samples.fields)

    def _denoise_batches(
        self,
        noise: Tensor,
        labels: Tensor | None,
        guidance_scale: float,
        num_inference_steps: int,
        batch_size: int,
        options: dict[str, Any],
    ) -> Tensor:
        """Vectors ``(N, V)`` of noise ``(N, V)``, in batches under one bar; ``options`` are of :meth:`denoise`."""
        self.scheduler.set_timesteps(num_inference_steps, device=noise.device)  # some look twice at a timestep
        starts, generators, parts = range(0, len(noise), batch_size), options.pop("generator"), []
        with self.progress_bar(total=len(starts) * len(self.scheduler.timesteps)) as bar:
            for rows in (slice(start, start + batch_size) for start in starts):
                predict = self.predictor(None if labels is None else labels[rows], guidance_scale)
                generator = generators[rows] if isinstance(generators, (list, tuple)) else generators
                taken = {**options, "generator": generator, "advance": bar.update}
                parts.append(self.denoise(noise[rows], predict, num_inference_steps, **taken))
        return torch.cat(parts)

    def noise(self, num: int, generator: Generators) -> Tensor:
        """Where sampling starts: vectors ``(N, V)``, drawn one after the other, in float32 at least.

        Raises:
            UserError: There are more or fewer generators than vectors.
        """
        generators = list(generator) if isinstance(generator, (list, tuple)) else [generator] * num
        if len(generators) != num:
            raise UserError(
                f"{len(generators)} generators are given for {num} fields",
                allowed="one, or a list with one for each",
                do="make as many as there are fields",
            )
        shape, device = (self.transformer.vector_size,), self._execution_device
        drawn = torch.stack([randn_tensor(shape, one, device, torch.float32) for one in generators])
        return drawn.to(self._steps_type)

    def _checked_noise(self, num: int, latents: Tensor) -> Tensor:
        expected = (num, self.transformer.vector_size)
        if tuple(latents.shape) != expected:
            raise UserError(
                f"latents have the shape {tuple(latents.shape)}",
                allowed=f"{expected}: one vector of unit noise for each field",
                do="draw them with torch.randn",
            )
        return latents.to(self._execution_device, self._steps_type)

    @property
    def _steps_type(self) -> torch.dtype:
        """The type that samplers compute in: the noise of some is too large for float16."""
        return torch.promote_types(self.transformer.dtype, torch.float32)

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
            # Away from the prediction without a class: p + g (c - p).
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
        generator: Generators = None,
        eta: float = 0.0,
        advance: Callable[[], object] = lambda: None,
        after_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Vectors ``(N, V)`` by reverse diffusion of noisy vectors.

        Args:
            vector: Where all steps are taken, noise of unit size ``(N, V)``; otherwise noisy vectors as
                ``scheduler.add_noise`` makes them for the first step that is taken.
            predict: What the network predicts.
            num_inference_steps: Steps from pure noise.
            strength: Share of them that is taken, the last ones.
            generator: Source of the noise of samplers that draw some at each step, or one for each vector.
            eta: See :meth:`__call__`.
            advance: Called after each step.
            after_step: From the number of a step, its timestep and the vectors to those of the next step.
        """
        # All steps start at the sampler's own noise; the last ones alone at vectors that are noisy in part.
        self.scheduler.set_timesteps(num_inference_steps, device=vector.device)
        taken = self.timesteps_taken(strength)
        if len(taken) == len(self.scheduler.timesteps):
            vector = vector * self.scheduler.init_noise_sigma
        options = self.step_options(generator, eta)
        # Each step: what the network predicts, the sampler's step, and what the caller does to its result.
        for number, timestep in enumerate(taken):
            prediction = predict(self.scheduler.scale_model_input(vector, timestep), timestep)  # (N, V)
            vector = self.scheduler.step(prediction, timestep, vector, **options).prev_sample
            if after_step is not None:
                vector = after_step(number, timestep, vector)
            advance()
        return vector

    def step_options(self, generator: Generators, eta: float = 0.0) -> dict:
        """What the sampler's ``step`` takes beside the prediction: a source of noise, and how much, if it draws any.

        Raises:
            UserError: The sampler has no such setting.
        """
        taken = inspect.signature(self.scheduler.step).parameters
        if eta and "eta" not in taken:
            kind = type(self.scheduler).__name__
            raise UserError(f"eta is {eta}, which {kind} does not take", allowed="0, or another number with DDIM")
        generators = list(generator) if isinstance(generator, tuple) else generator
        return {name: value for name, value in (("generator", generators), ("eta", eta)) if name in taken}

    def timesteps_taken(self, strength: float) -> Tensor:
        """The last share of the timesteps that are set, those of one step at least.

        Raises:
            UserError: The sampler has a start of its own and cannot begin later.
        """
        steps, order = self.scheduler.timesteps, self.scheduler.order  # a step of second order has two timesteps
        number = self.scheduler.num_inference_steps
        skipped = (number - max(1, round(strength * number))) * order
        if skipped and self.scheduler.config.get("skip_prk_steps") is False:
            raise UserError(
                "PNDM starts with Runge-Kutta steps and cannot begin with fields that are noised in part",
                allowed="strength 1, or a scheduler with skip_prk_steps=True",
                do="PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)",
            )
        return steps[skipped:]

    def samples(self, vectors: Tensor, size: Sequence[int] | None = None, batch_size: int = 256) -> WeightSamples:
        """Fields of vectors ``(N, V)`` as weights, pictures and callables."""
        parts = [self.space.decode(vector) for vector in vectors.float().split(batch_size)]
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
        wanted = [labels] * num if single else [x if isinstance(x, str) else int(x) for x in labels]
        numbers = [names.index(label) if label in names else label for label in wanted]
        unknown = [label for label in numbers if not isinstance(label, int) or not 0 <= label < len(names)]
        if unknown:
            allowed = f"0 to {len(names) - 1}, or one of: {', '.join(names)}"
            raise UserError(f"class {unknown[0]!r} is unknown", allowed=allowed, do="choose another class")
        if len(numbers) != num:
            raise UserError(f"{len(numbers)} class labels are given for {num} fields", allowed="one, or one for each")
        return torch.tensor(numbers, device=self.transformer.device)

    def _check(self, num: int, num_inference_steps: int, batch_size: int) -> None:
        check_sampler(self.scheduler, self.config.process)  # its settings may have changed since it was put in
        most = self.scheduler.config.num_train_timesteps
        least = 4 if self.scheduler.config.get("skip_prk_steps") is False else 1  # PNDM's Runge-Kutta start
        values = {"num": num, "num_inference_steps": num_inference_steps, "batch_size": batch_size}
        check_values(values, num=at_least(1), num_inference_steps=between(least, most), batch_size=at_least(1))


def _after_step(
    pipeline: WeightDiffusionPipeline, callback: Callable[..., Mapping] | None, names: Sequence[str]
) -> Callable[[int, Tensor, Tensor], Tensor] | None:
    """A user's callback, as diffusers calls it, as a map of vectors; None for no callback."""
    unknown = [name for name in names if name != "latents"]
    if unknown:
        raise UserError(f"a callback is given no {unknown[0]!r}", allowed="latents", do="ask for latents alone")
    if callback is None:
        return None

    def after(number: int, timestep: Tensor, vector: Tensor) -> Tensor:
        returned = callback(pipeline, number, timestep, {"latents": vector} if names else {})
        return (returned or {}).get("latents", vector)

    return after


# DiffusionPipeline.from_pretrained looks the class of a saved pipeline up among those of diffusers.
diffusers.WeightDiffusionPipeline = WeightDiffusionPipeline


def load_pipeline(path: Path | str) -> WeightDiffusionPipeline:
    """The diffusion pipeline in a folder, or in the folder ``model`` of a training run.

    Raises:
        UserError: There is none, or it cannot be loaded.
    """
    from diffusers.utils import logging as diffusers_logging

    folder = Path(path)
    folder = folder if (folder / "model_index.json").is_file() else folder / "model"
    allowed = "a folder written by wsrl train diffusion"
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{path} holds no diffusion model", allowed=allowed, do="train one, or check the path")
    diffusers_logging.disable_progress_bar()  # a bar over four components that load at once
    try:
        return WeightDiffusionPipeline.from_pretrained(folder)
    except (ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the model {folder} cannot be loaded: {reason}", allowed=allowed, do="train it again"
        ) from error
