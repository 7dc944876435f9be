"""Sampling weights: the diffusers pipeline that a trained diffusion model is saved as.

Letters: N samples, V trainable weights.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.store.field import Field


class SavedStatistics(ModelMixin, ConfigMixin):
    """Train statistics in the form that a pipeline can save and reload.

    Args:
        layout: Layout of the fields, as plain lists and dicts (``Layout.to_json``).
    """

    @register_to_config
    def __init__(self, layout: list):
        super().__init__()
        self.statistics = WeightStatistics(Layout.from_json(layout))

    @classmethod
    def of(cls, statistics: WeightStatistics) -> "SavedStatistics":
        """A copy of ``statistics`` that can be saved."""
        saved = cls(layout=statistics.layout.to_json())
        saved.statistics.load_state_dict(statistics.state_dict())
        return saved


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


class WeightDiffusionPipeline(DiffusionPipeline):
    """Samples fields, as weights and as pictures.

    ``WeightDiffusionPipeline.from_pretrained(folder)`` needs nothing but the folder: the base field is inside.

    A bar over all denoising steps is shown after ``pipeline.set_progress_bar_config(disable=False)``.

    Args:
        transformer: The denoiser (its averaged weights).
        scheduler: The sampler.
        statistics: Train statistics of the weights.
        decoder: Representation and base field.
    """

    def __init__(
        self,
        transformer: WeightTransformer,
        scheduler: DDIMScheduler,
        statistics: SavedStatistics,
        decoder: FieldDecoder,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, statistics=statistics, decoder=decoder)
        self.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(
        self,
        num: int,
        generator: torch.Generator | None = None,
        num_inference_steps: int = 50,
        batch_size: int = 256,
        size: Sequence[int] | None = None,
    ) -> WeightSamples:
        """Draw fields.

        The noise of sample ``i`` depends on the generator and on ``i`` alone: asking for more samples keeps the first
        ones, and the batch size changes them by rounding only.

        Args:
            num: Number of fields.
            generator: Source of the noise; None draws from torch's own.
            num_inference_steps: Denoising steps; at most the number of training timesteps.
            batch_size: Fields that are denoised together; memory grows with it.
            size: Height and width of the pictures; None takes the grid of the data.

        Returns:
            Weights, pictures and callables.

        Raises:
            UserError: If a number is out of range.
        """
        self._check(num, num_inference_steps, batch_size)
        parts, images = [], []
        starts = range(0, num, batch_size)
        with self.progress_bar(total=len(starts) * num_inference_steps) as bar:
            for start in starts:
                count = min(batch_size, num - start)
                vector = self.sample_vectors(count, generator, num_inference_steps, advance=bar.update)
                weights = self.statistics.statistics.denormalise(vector)
                images += self.decoder.images(weights, size)
                parts.append({name: tensor.cpu() for name, tensor in weights.items()})
        weights = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        fields = [self.decoder.field({name: tensor[i] for name, tensor in weights.items()}) for i in range(num)]
        return WeightSamples(weights=weights, images=images, fields=fields)

    @torch.no_grad()
    def sample_vectors(
        self,
        num: int,
        generator: torch.Generator | None,
        num_inference_steps: int,
        advance: Callable[[], object] = lambda: None,
    ) -> Tensor:
        """Normalised vectors ``(N, V)`` by reverse diffusion, on the device of the denoiser.

        Args:
            num: Number of fields, all denoised together.
            generator: Source of the noise.
            num_inference_steps: Denoising steps.
            advance: Called after each step.
        """
        device, dtype = self.transformer.device, self.transformer.dtype
        shape = (self.transformer.num_weights,)
        vector = torch.stack([randn_tensor(shape, generator, device, dtype) for _ in range(num)])
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        vector = vector * self.scheduler.init_noise_sigma
        stochastic = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": generator} if stochastic else {}
        for timestep in self.scheduler.timesteps:
            prediction = self.transformer(self.scheduler.scale_model_input(vector, timestep), timestep)
            vector = self.scheduler.step(prediction, timestep, vector, **options).prev_sample
            advance()
        return vector

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
