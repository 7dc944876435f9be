"""Schedulers of diffusers that a pipeline takes sample a Gaussian, whose best denoiser is known; others are refused.

Public reports of the kind: diffusers-rs PR#32 and diffusers#2941 (noise that is not of the sampler's own size).
"""

import diffusers
import pytest
import torch
from diffusion_fields import GaussianDenoiser, picture_form, standalone_representation, statistics_of

from wsrl.diffusion.completion import KnownPart, complete
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.diffusion.editing import variations
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import PREDICTIONS, sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

MEAN, STD = 3.0, 0.3
COSINE, LINEAR = {}, {"prediction_type": "epsilon", "beta_schedule": "linear"}
CLEAN = {"prediction_type": "sample"}
LONG_FIRST_STEP = ("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
DETERMINISTIC = [name for name in PREDICTIONS if not any(word in name for word in ("DDPM", "Ancestral", "SASolver"))]
REFUSED = [
    "LCMScheduler",
    "TCDScheduler",
    "UnCLIPScheduler",
    "DDIMInverseScheduler",
    "RePaintScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "IPNDMScheduler",
    "CMStochasticIterativeScheduler",
    "DDPMWuerstchenScheduler",
    "CogVideoXDDIMScheduler",
    "SCMScheduler",
    "KarrasVeScheduler",
]


def make_pipeline(process, **options):
    representation = standalone_representation()
    space = WeightSpace.of(statistics_of(representation))
    return WeightDiffusionPipeline(
        transformer=GaussianDenoiser(space.vector_size, MEAN, STD, process),
        scheduler=sampler("ddim", training_scheduler(**process)),
        space=space,
        decoder=FieldDecoder.from_representation(representation, picture_form(representation, (4, 4))),
        **options,
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def put_in(pipeline, name, **options):
    """As users of diffusers do."""
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **options)


def vectors(pipeline, num=8, steps=50, generator=None, **options):
    """Vectors of sampled fields."""
    generator = seeded() if generator is None else generator
    return pipeline.space.encode(pipeline(num, generator=generator, num_inference_steps=steps, **options).weights)


def fits(name, process):
    kind = process.get("prediction_type", "v_prediction")
    return kind in PREDICTIONS[name] and not (name in LONG_FIRST_STEP and process is not LINEAR)


@pytest.mark.parametrize("process", [COSINE, CLEAN, LINEAR], ids=["velocity", "clean", "noise"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_scheduler_samples_the_gaussian_or_is_refused(name, process):
    pipeline = make_pipeline(process)
    if not fits(name, process):
        with pytest.raises(UserError, match=name):
            put_in(pipeline, name)
        return
    put_in(pipeline, name)
    steps = 250 if "DDPM" in name or "Ancestral" in name else 100
    found = (vectors(pipeline, num=64, steps=steps) - MEAN) / STD
    assert abs(float(found.mean())) < 0.06
    assert abs(float(found.std()) - 1) < 0.06


@pytest.mark.parametrize("name", REFUSED)
def test_other_schedulers_are_refused_by_name(name):
    pipeline = make_pipeline(COSINE)
    before = pipeline.scheduler
    with pytest.raises(UserError, match=rf"{name} cannot sample this model.*DDIMScheduler"):
        put_in(pipeline, name)
    assert pipeline.scheduler is before
    with pytest.raises(UserError, match=r"EulerDiscreteScheduler cannot .* it is a class"):
        pipeline.scheduler = diffusers.EulerDiscreteScheduler


@pytest.mark.parametrize(
    "name, options, told",
    [
        ("DDIMScheduler", {"clip_sample": True}, "clip_sample is True"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "thresholding is True"),
        ("DDIMScheduler", {"timestep_spacing": "leading"}, "do not start at pure noise"),
        ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "use_beta_sigmas is True"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type is 'continuous'"),
        ("DDPMScheduler", {"variance_type": "learned"}, "predicts no variance"),
        ("UniPCMultistepScheduler", {"use_karras_sigmas": True}, "leave use_karras_sigmas out"),
        ("DDIMScheduler", {"prediction_type": "epsilon"}, "'v_prediction', as the model was trained"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "'v_prediction', as the model was"),
        ("DDIMScheduler", {"beta_schedule": "linear"}, "another noise process"),
        ("DDIMScheduler", {"num_train_timesteps": 500}, "another noise process"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, options, told):
    with pytest.raises(UserError, match=told):
        put_in(make_pipeline(COSINE), name, **options)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"])
def test_other_spacings_of_the_noise_sample_it_too(name):
    pipeline = make_pipeline(COSINE)
    put_in(pipeline, name, use_karras_sigmas=True)
    found = (vectors(pipeline, num=32, steps=200) - MEAN) / STD
    assert abs(float(found.mean())) < 0.06 and abs(float(found.std()) - 1) < 0.08


def test_a_scheduler_of_defaults_is_refused():
    with pytest.raises(UserError, match="prediction_type 'epsilon'"):
        make_pipeline(COSINE).scheduler = diffusers.EulerDiscreteScheduler()


def test_the_noise_process_is_kept_where_its_betas_are_the_defaults_of_one_scheduler_only():
    """``from_config`` drops what is a default: Heun's betas are others than DDIM's (diffusers' habit)."""
    process = diffusers.DDPMScheduler(
        beta_schedule="linear", clip_sample=False, timestep_spacing="trailing", prediction_type="epsilon"
    )
    pipeline = make_pipeline(LINEAR)
    pipeline.scheduler = sampler("ddim", process)  # as saved pipelines have it, which do not name the betas
    put_in(pipeline, "HeunDiscreteScheduler")
    torch.testing.assert_close(pipeline.scheduler.alphas_cumprod, process.alphas_cumprod)


def test_euler_starts_at_its_own_size_and_then_agrees_with_ddim():
    """diffusers-rs PR#32, diffusers#2941: without ``init_noise_sigma`` the samples are off by their own size."""
    pipeline = make_pipeline(COSINE)
    first = vectors(pipeline)
    put_in(pipeline, "EulerDiscreteScheduler")
    torch.testing.assert_close(vectors(pipeline), first, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler"])
def test_with_a_generator_for_each_a_sample_does_not_depend_on_the_batch(name):
    pipeline = make_pipeline(COSINE)
    put_in(pipeline, name)
    eta = {"eta": 1.0} if name == "DDIMScheduler" else {}
    together = vectors(pipeline, 5, 10, [seeded(k) for k in range(5)], batch_size=2, **eta)
    alone = torch.cat([vectors(pipeline, 1, 10, seeded(k), **eta) for k in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1
    with pytest.raises(UserError, match="2 generators are given for 3 fields"):
        vectors(pipeline, 3, 10, [seeded(0), seeded(1)])


def test_eta_is_for_samplers_that_take_it():
    pipeline = make_pipeline(COSINE)
    assert (vectors(pipeline, eta=1.0) - vectors(pipeline)).abs().max() > 1e-2
    put_in(pipeline, "UniPCMultistepScheduler")
    with pytest.raises(UserError, match="UniPCMultistepScheduler does not take"):
        vectors(pipeline, eta=1.0)


@pytest.mark.parametrize("name", [name for name in PREDICTIONS if fits(name, LINEAR)])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_few_steps_end_in_numbers(name, steps):
    pipeline = make_pipeline(LINEAR)
    put_in(pipeline, name)
    if name == "PNDMScheduler" and steps < 4:
        with pytest.raises(UserError, match=f"num_inference_steps is {steps}"):
            vectors(pipeline, 2, steps)
        return
    assert vectors(pipeline, 2, steps).isfinite().all()


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if fits(name, LINEAR)])
def test_variations_are_those_of_ddim(name):
    pipeline = make_pipeline(LINEAR)
    field = pipeline.space.decode(torch.full((1, pipeline.space.vector_size), MEAN + STD))

    def vary(strength=0.4):
        options = {"strength": strength, "predict": pipeline.transformer, "steps": 200, "generator": seeded()}
        return pipeline.space.encode(variations(pipeline, field, 3, **options))

    expected = vary()
    put_in(pipeline, name)
    if name == "PNDMScheduler":
        with pytest.raises(UserError, match="skip_prk_steps=True"):
            vary()
        put_in(pipeline, name, skip_prk_steps=True)
    torch.testing.assert_close(vary(), expected, atol=0.05, rtol=0)


def test_completion_refuses_samplers_whose_noise_has_another_size():
    pipeline = make_pipeline(COSINE)
    put_in(pipeline, "EulerDiscreteScheduler")
    known = KnownPart(torch.zeros(1, 2), torch.zeros(1, 1))
    with pytest.raises(UserError, match="EulerDiscreteScheduler cannot complete"):
        complete(pipeline, known, 2, predict=pipeline.transformer, steps=5)
