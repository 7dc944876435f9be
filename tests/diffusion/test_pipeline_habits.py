"""What users of diffusers do with any pipeline: types, generators, callbacks, reloading under the base class."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, UniPCMultistepScheduler
from diffusion_fields import adapter_representation
from test_pipeline import generator, make_pipeline

from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.errors import UserError

STEPS = 5


def flat(samples):
    return torch.cat([tensor.flatten(1) for tensor in samples.weights.values()], dim=1)


@pytest.fixture
def pipeline():
    return make_pipeline(adapter_representation())


def draw(pipeline, num=3, **options):
    return flat(pipeline(num, generator=generator(), num_inference_steps=STEPS, **options))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_another_type_gives_the_same_fields_but_for_rounding(pipeline, kind):
    """diffusers habit: ``.to(torch.bfloat16)``; statistics and base field do not lose digits on the way."""
    before = draw(pipeline)
    pipeline.to(kind)
    assert pipeline.transformer.dtype == kind
    scale = before.std()
    assert (draw(pipeline).float() - before).abs().max() < 0.1 * scale
    pipeline.to("cpu", torch.float32)
    statistics = make_pipeline(adapter_representation()).space.statistics
    assert torch.equal(pipeline.space.statistics.mean, statistics.mean)
    assert pipeline.decoder.dtype == torch.float32


def test_the_denoiser_alone_may_be_put_into_half(pipeline):
    before = draw(pipeline)
    pipeline.transformer.half()
    pipeline.space.half(), pipeline.decoder.bfloat16()
    assert (draw(pipeline) - before).abs().max() < 0.1 * before.std()
    vector = torch.randn(2, pipeline.space.vector_size)
    assert pipeline.transformer(vector, torch.tensor(3)).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
@pytest.mark.parametrize("cls", [WeightDiffusionPipeline, DiffusionPipeline])
def test_it_reloads_in_another_type_under_the_base_class_too(pipeline, cls, tmp_path):
    before = draw(pipeline)
    pipeline.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert isinstance(again, WeightDiffusionPipeline) and again.transformer.dtype == torch.bfloat16
    assert torch.equal(again.space.statistics.std, pipeline.space.statistics.std)
    assert (draw(again) - before).abs().max() < 0.1 * before.std()


def test_another_scheduler_is_saved_and_its_process_is_still_known(pipeline, tmp_path):
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    before = draw(pipeline)
    pipeline.save_pretrained(tmp_path)
    again = WeightDiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(again.scheduler, UniPCMultistepScheduler)
    torch.testing.assert_close(draw(again), before, atol=1e-5, rtol=1e-5)
    again.scheduler = DDIMScheduler.from_config(again.scheduler.config)
    assert again.scheduler.config.clip_sample is False
    with pytest.raises(UserError, match="as the model was trained"):
        WeightDiffusionPipeline.from_pretrained(tmp_path, scheduler=EulerDiscreteScheduler())
    euler = EulerDiscreteScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    draw(WeightDiffusionPipeline.from_pretrained(tmp_path, scheduler=euler))


def test_models_saved_without_their_process_take_that_of_their_scheduler(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["process"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = WeightDiffusionPipeline.from_pretrained(tmp_path)
    assert again.config.process["prediction_type"] == "v_prediction"
    with pytest.raises(UserError, match="as the model was trained"):
        again.scheduler = EulerDiscreteScheduler()


def test_the_components_make_the_pipeline_again(pipeline):
    torch.testing.assert_close(draw(WeightDiffusionPipeline(**pipeline.components)), draw(pipeline))


def test_given_noise_is_where_sampling_starts(pipeline):
    noise = pipeline.noise(3, generator())
    assert torch.equal(draw(pipeline, latents=noise), draw(pipeline))
    with pytest.raises(UserError, match="latents have the shape"):
        draw(pipeline, latents=noise[:, :-1])


def test_a_callback_sees_each_step_of_each_batch_and_may_change_the_vectors(pipeline):
    seen = []

    def callback(given, number, timestep, tensors):
        assert given is pipeline
        seen.append((number, int(timestep), tensors["latents"].shape[0]))
        return {"latents": torch.zeros_like(tensors["latents"])}

    samples = draw(pipeline, batch_size=2, callback_on_step_end=callback)
    assert [step[0] for step in seen] == 2 * list(range(STEPS)) and [step[2] for step in seen[::STEPS]] == [2, 1]
    assert torch.equal(samples[0], samples[2])
    with pytest.raises(UserError, match="given no 'prompt_embeds'"):
        draw(pipeline, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    assert torch.equal(draw(pipeline, callback_on_step_end=lambda *_: None), draw(pipeline))


def test_a_tuple_is_returned_where_it_is_asked_for(pipeline):
    weights, images, fields = pipeline(2, generator=generator(), num_inference_steps=STEPS, return_dict=False)
    assert set(weights) == set(pipeline(1, num_inference_steps=1).weights) and len(images) == len(fields) == 2


def test_switches_of_diffusers_leave_the_fields_as_they_are(pipeline, capsys):
    before = draw(pipeline)
    pipeline.enable_attention_slicing()
    pipeline.set_progress_bar_config(disable=False)
    assert torch.equal(draw(pipeline), before)
    assert f"{STEPS}/{STEPS}" in capsys.readouterr().err
