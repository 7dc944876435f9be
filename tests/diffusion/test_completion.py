"""Completion: for Gaussian fields, whose best denoiser is known, the known part is met and the rest stays free."""

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusion_fields import picture_form, random_fields, standalone_representation, statistics_of

from wsrl.diffusion.completion import KnownPart, complete
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import SAMPLERS, sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.errors import UserError
from wsrl.signals.signal import grid_coords

GRID = (6, 6)
KNOWN = 6
STEPS = 25


class StandardNormal(ModelMixin, ConfigMixin):
    """The best denoiser of standard normal vectors: their velocity is zero at every timestep."""

    @register_to_config
    def __init__(self, vector_size: int):
        super().__init__()
        self.vector_size = vector_size
        self.none = torch.nn.Parameter(torch.zeros(()))

    def forward(self, vector, timestep, class_labels=None):
        """Velocity of noisy vectors."""
        return vector * self.none


@pytest.fixture(scope="module")
def representation():
    return standalone_representation()


@pytest.fixture
def pipeline(representation):
    space = WeightSpace.of(statistics_of(representation))
    return WeightDiffusionPipeline(
        transformer=StandardNormal(space.vector_size),
        scheduler=sampler("ddim", training_scheduler()),
        space=space,
        decoder=FieldDecoder.from_representation(representation, picture_form(representation, GRID)),
    )


@pytest.fixture
def known(representation):
    field = random_fields(representation, 1, seed=9)
    coords = grid_coords(GRID)[:KNOWN]
    return KnownPart(coords, representation.evaluate(field, coords)[0])


def draw(pipeline, known, **options):
    generator = torch.Generator().manual_seed(4)
    return complete(
        pipeline, known, 6, predict=pipeline.transformer, steps=STEPS, generator=generator, **options
    ).detach()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_known_part_is_met_and_the_rest_differs(pipeline, known, name):
    pipeline.scheduler = sampler(name, pipeline.scheduler)
    plain, pulled = draw(pipeline, known, strength=0.0), draw(pipeline, known, refinements=0)
    refined = draw(pipeline, known)
    errors = [float(known.loss(pipeline, vectors).mean()) for vectors in (plain, pulled, refined)]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.02 * errors[0]
    values = pipeline.decoder.decode(pipeline.space.decode(refined), grid_coords(GRID))
    apart = values.std(dim=0).flatten()
    assert apart[KNOWN:].mean() > 5 * apart[:KNOWN].mean()


def test_without_strength_they_are_plain_samples(pipeline, known):
    generator = torch.Generator().manual_seed(4)
    plain = pipeline(6, generator=generator, num_inference_steps=STEPS).weights
    for name, tensor in pipeline.space.decode(draw(pipeline, known, strength=0.0)).items():
        torch.testing.assert_close(tensor, plain[name])


def test_the_same_seed_gives_the_same_fields(pipeline, known):
    assert torch.equal(draw(pipeline, known), draw(pipeline, known))


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"refinements": -1}])
def test_negative_numbers_are_refused(pipeline, known, options):
    with pytest.raises(UserError, match=next(iter(options))):
        draw(pipeline, known, **options)
