"""The pipeline: what it returns, that it reloads alone, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_fields import (
    adapter_representation,
    picture_form,
    random_fields,
    standalone_representation,
    statistics_of,
)

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import SAMPLERS, sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.errors import UserError
from wsrl.signals.signal import grid_coords


def make_pipeline(representation, grid=(5, 7), classes=()):
    torch.manual_seed(0)
    transformer = WeightTransformer(
        layout=representation.layout.to_json(), classes=list(classes), width=16, depth=1, local_depth=1, heads=2
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return WeightDiffusionPipeline(
        transformer=transformer,
        scheduler=sampler("ddim", training_scheduler()),
        space=WeightSpace.of(statistics_of(representation)),
        decoder=FieldDecoder.from_representation(representation, picture_form(representation, grid)),
    )


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", [adapter_representation, standalone_representation])
def test_it_reloads_from_its_folder_alone_with_the_same_pictures(make, tmp_path):
    representation = make()
    pipeline = make_pipeline(representation)
    before = pipeline(4, generator=generator(), num_inference_steps=5)
    pipeline.save_pretrained(tmp_path)
    after = WeightDiffusionPipeline.from_pretrained(tmp_path)(4, generator=generator(), num_inference_steps=5)
    for name, tensor in before.weights.items():
        assert tensor.shape[0] == 4
        torch.testing.assert_close(after.weights[name], tensor, atol=1e-5, rtol=1e-5)
    assert before.images[0].size == (7, 5) and before.images[0].mode == "L"
    for one, two in zip(before.images, after.images):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(two, dtype=int)).max() <= 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_a_fresh_process_reloads_it(tmp_path):
    make_pipeline(adapter_representation()).save_pretrained(tmp_path)
    code = (
        "import sys, torch; from wsrl.diffusion.pipeline import WeightDiffusionPipeline as P; "
        "out = P.from_pretrained(sys.argv[1])(2, generator=torch.Generator().manual_seed(0), num_inference_steps=2); "
        "assert len(out.images) == 2"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)


def test_the_same_seed_gives_the_same_fields_and_another_seed_others():
    pipeline = make_pipeline(adapter_representation())
    one, two, other = (pipeline(3, generator=generator(seed), num_inference_steps=4).weights for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["layers.0.up"], other["layers.0.up"])


def test_batch_size_and_number_do_not_change_a_sample():
    pipeline = make_pipeline(adapter_representation())
    together = pipeline(5, generator=generator(), num_inference_steps=4).weights
    apart = pipeline(3, generator=generator(), num_inference_steps=4, batch_size=2).weights
    for name, tensor in apart.items():
        torch.testing.assert_close(together[name][:3], tensor, atol=1e-5, rtol=1e-5)


def test_frozen_entries_are_those_of_the_train_fields():
    representation = adapter_representation()
    train = random_fields(representation, 1)
    samples = make_pipeline(representation)(2, generator=generator(), num_inference_steps=2).weights
    frozen = 0
    for spec in representation.layout:
        mask = ~spec.trainable()
        frozen += int(mask.sum())
        assert torch.equal(samples[spec.name][:, mask], train[spec.name][:, mask].expand(2, -1))
    assert frozen > 0


def test_pictures_and_fields_are_what_the_representation_says():
    representation = adapter_representation()
    output = make_pipeline(representation)(2, generator=generator(), num_inference_steps=3, size=(4, 6))
    values = representation.evaluate(output.weights, grid_coords((4, 6)))
    torch.testing.assert_close(output.fields[1](grid_coords((4, 6))), values[1])
    expected = (values[1].clamp(0, 1) * 255).round().reshape(4, 6)
    assert np.abs(np.asarray(output.images[1], dtype=float) - expected.numpy()).max() <= 1


def test_fields_that_are_no_pictures_have_none():
    output = make_pipeline(adapter_representation(), grid=None)(2, generator=generator(), num_inference_steps=2)
    assert output.images == [] and len(output.fields) == 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_sampler_can_be_put_in(name):
    pipeline = make_pipeline(adapter_representation())
    pipeline.scheduler = sampler(name, pipeline.scheduler)
    one, two = (pipeline(2, generator=generator(), num_inference_steps=3).weights for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)  # as users of diffusers do
    assert pipeline.scheduler.config.clip_sample is False
    pipeline(2, generator=generator(), num_inference_steps=3)


def test_classes_are_asked_for_by_name_or_number_and_guided():
    pipeline = make_pipeline(adapter_representation(), classes=("cat", "dog"))

    def draw(labels, scale=1.0):
        output = pipeline(2, labels, scale, generator(), num_inference_steps=3)
        return torch.cat([tensor.flatten(1) for tensor in output.weights.values()], dim=1)

    assert torch.equal(draw("dog"), draw(1)) and torch.equal(draw(["dog", "cat"]), draw(torch.tensor([1, 0])))
    assert not torch.equal(draw(0), draw(1)) and not torch.equal(draw(0), draw(None))
    torch.testing.assert_close(draw(0, 0.0), draw(None), atol=1e-5, rtol=1e-5)
    near, far = ((draw(0, scale) - draw(None)).norm() for scale in (1.0, 3.0))
    assert far > near


@pytest.mark.parametrize("labels", ["bird", 2, -1, [0], [0, "bird"]])
def test_wrong_classes_are_refused(labels):
    pipeline = make_pipeline(adapter_representation(), classes=("cat", "dog"))
    with pytest.raises(UserError, match=r"unknown|labels are given"):
        pipeline(2, labels, num_inference_steps=2)


def test_a_model_without_classes_refuses_them():
    with pytest.raises(UserError, match="no classes"):
        make_pipeline(adapter_representation())(2, 0, num_inference_steps=2)


@pytest.mark.parametrize("options", [{"num": 0}, {"num_inference_steps": 1001}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(options):
    pipeline = make_pipeline(adapter_representation())
    with pytest.raises(UserError, match=next(iter(options))):
        pipeline(**{"num": 1, **options})
