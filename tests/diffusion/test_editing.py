"""Around given fields: the ends of interpolations, the way to the noise and back, and what a strength means."""

import pytest
import torch
from diffusion_fields import (
    adapter_representation,
    picture_form,
    random_fields,
    standalone_representation,
    statistics_of,
)

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.denoising_loss import PREDICTION_TYPES, clean_and_noise, training_scheduler
from wsrl.diffusion.editing import linear_interpolation, ode_interpolation, spherical, variations
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import SAMPLERS, sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.errors import UserError

REPRESENTATIONS = [adapter_representation, standalone_representation]


def make_pipeline(representation):
    torch.manual_seed(0)
    layout = representation.layout.to_json()
    transformer = WeightTransformer(layout=layout, width=16, depth=1, local_depth=1, heads=2)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return WeightDiffusionPipeline(
        transformer=transformer,
        scheduler=sampler("ddim", training_scheduler()),
        space=WeightSpace.of(statistics_of(representation)),
        decoder=FieldDecoder.from_representation(representation, picture_form(representation, (5, 7))),
    )


def one_field(weights, row):
    return {name: tensor[row : row + 1] for name, tensor in weights.items()}


def vectors_of(pipeline, weights):
    return pipeline.space.encode(weights)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_clean_vectors_and_noise_come_out_of_every_prediction(kind):
    process = training_scheduler(prediction_type=kind, beta_schedule="linear")
    clean, noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor(400)
    noisy = process.add_noise(clean, noise, timestep.expand(3))
    predictions = {"epsilon": noise, "sample": clean, "v_prediction": process.get_velocity(clean, noise, timestep)}
    found_clean, found_noise = clean_and_noise(process, predictions[kind], noisy, timestep)
    torch.testing.assert_close(found_clean, clean)
    torch.testing.assert_close(found_noise, noise)


@pytest.mark.parametrize("make", REPRESENTATIONS)
def test_a_straight_way_in_weights_is_the_line(make):
    ends = random_fields(make(), 2)
    between = linear_interpolation(ends, 5)
    for name, tensor in ends.items():
        assert torch.equal(between[name][[0, -1]], tensor)
        torch.testing.assert_close(between[name][1], 0.75 * tensor[0] + 0.25 * tensor[1])


def test_a_straight_way_in_a_space_is_straight_there():
    pipeline = make_pipeline(adapter_representation())
    ends = random_fields(adapter_representation(), 2)
    between = vectors_of(pipeline, linear_interpolation(ends, 3, pipeline.space))
    torch.testing.assert_close(between[1], vectors_of(pipeline, ends).mean(dim=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", REPRESENTATIONS)
def test_the_ode_leads_to_the_noise_and_back(make):
    representation = make()
    pipeline, ends = make_pipeline(representation), random_fields(representation, 2, seed=5)
    between = ode_interpolation(pipeline, ends, 3, predict=pipeline.transformer, steps=20)
    there, back = vectors_of(pipeline, ends), vectors_of(pipeline, between)
    apart = (there[0] - there[1]).norm()
    assert (back[0] - there[0]).norm() < 1e-3 * apart and (back[2] - there[1]).norm() < 1e-3 * apart
    assert min((back[1] - end).norm() for end in there) > 0.05 * apart


def test_the_ode_is_that_of_the_ddim_sampler():
    pipeline = make_pipeline(adapter_representation())
    sampled = pipeline(2, generator=torch.Generator().manual_seed(1), num_inference_steps=20).weights
    between = ode_interpolation(pipeline, sampled, 2, predict=pipeline.transformer, steps=20)
    torch.testing.assert_close(vectors_of(pipeline, between), vectors_of(pipeline, sampled), atol=2e-3, rtol=2e-3)


def test_the_sphere_keeps_length_and_divides_the_angle():
    first, second = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    assert torch.equal(spherical(first, second, 0.0), first)
    third = spherical(first, second, 1 / 3)
    torch.testing.assert_close(third, (8 / 3) * torch.tensor([3**0.5 / 2, 0.5, 0.0]))
    torch.testing.assert_close(spherical(first, 2 * first, 0.5), 1.5 * first)


@pytest.mark.parametrize("name", SAMPLERS)
def test_strength_goes_from_the_field_to_new_samples(name):
    representation = adapter_representation()
    pipeline, field = make_pipeline(representation), random_fields(representation, 1, seed=5)
    pipeline.scheduler = sampler(name, pipeline.scheduler)

    def vary(strength):
        generator, options = torch.Generator().manual_seed(2), {"strength": strength, "steps": 20}
        return variations(pipeline, field, 3, predict=pipeline.transformer, generator=generator, **options)

    distances = [
        (vectors_of(pipeline, vary(strength)) - vectors_of(pipeline, field)).norm() for strength in (0, 0.1, 0.4, 1)
    ]
    assert distances[0] == 0 and distances == sorted(distances) and len(set(distances)) == 4
    assert all(torch.equal(vary(0)[key], tensor.expand(3, *tensor.shape[1:])) for key, tensor in field.items())
    new = pipeline(3, generator=torch.Generator().manual_seed(2), num_inference_steps=20).weights
    for key, tensor in vary(1).items():
        torch.testing.assert_close(tensor, new[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_out_of_range_is_refused(strength):
    pipeline = make_pipeline(adapter_representation())
    field = one_field(random_fields(adapter_representation(), 2), 0)
    with pytest.raises(UserError, match="strength is"):
        variations(pipeline, field, 1, strength=strength, predict=pipeline.transformer)
