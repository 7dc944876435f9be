"""Samplers of diffusers, set up for weights: nothing is clipped, and steps start at pure noise.

What a sampler makes of a model is known where the best denoiser is, as for Gaussian fields. Those of diffusers that
give the right mean and standard deviation there are listed here; the others are refused by name before they give wrong
fields.
"""

from collections.abc import Mapping

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin
from torch import Tensor

from wsrl.errors import UserError

_EVERY = {"thresholding": False, "timestep_spacing": "trailing"}
SAMPLERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "dpm++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": True},
    ),
}

PROCESS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type")
"""Settings of a scheduler that belong to the trained model and not to the way it is sampled."""

_ANY = ("epsilon", "v_prediction", "sample")
PREDICTIONS = {
    "DDIMScheduler": _ANY,
    "DDIMParallelScheduler": _ANY,
    "DDPMScheduler": _ANY,
    "DDPMParallelScheduler": _ANY,
    "DPMSolverMultistepScheduler": _ANY,
    "DPMSolverSinglestepScheduler": _ANY,
    "UniPCMultistepScheduler": _ANY,
    "DEISMultistepScheduler": _ANY,
    "SASolverScheduler": _ANY,
    "EulerDiscreteScheduler": _ANY,
    "LMSDiscreteScheduler": _ANY,
    "EulerAncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "HeunDiscreteScheduler": ("epsilon", "v_prediction"),
    "KDPM2DiscreteScheduler": ("epsilon", "v_prediction"),
    "KDPM2AncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "PNDMScheduler": ("epsilon",),  # of velocities it takes the mean over timesteps, which is not a velocity
}
"""Schedulers of diffusers that sample a model, and the kinds of prediction with which they do."""

_REASONS = {
    "LCMScheduler": "it is for networks distilled into a consistency model",
    "TCDScheduler": "it is for networks distilled into a consistency model",
    "DDIMInverseScheduler": "it goes from fields to noise",
    "DPMSolverMultistepInverseScheduler": "it goes from fields to noise",
    "UnCLIPScheduler": "its steps do not end at the fields of another model than unCLIP's prior",
    "DPMSolverSDEScheduler": "it draws its noise from no generator",
    "RePaintScheduler": "it takes a picture and a mask",
}
_WRONG_SETTINGS = (
    ("clip_sample", (True,), "weights are not pixels in [-1, 1]"),
    ("thresholding", (True,), "weights are not pixels in [-1, 1]"),
    ("timestep_spacing", ("leading",), "its steps do not start at pure noise"),
    ("use_beta_sigmas", (True,), "its first steps are too long for the noise of a model of weights"),
    ("use_flow_sigmas", (True,), "the model is not one of flow matching"),
    ("timestep_type", ("continuous",), "the model knows timesteps by their number"),
    ("variance_type", ("learned", "learned_range"), "the model predicts no variance"),
)
_STEEP = 1000.0
"""Noise over signal at the last timestep from where the first step is too long for some samplers (cosine: 20,000)."""
_LONG_FIRST_STEP = ("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
_OTHER_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas")
_CLOSE = 0.02
"""How far the signal of two noise processes may be apart: that of ``rescale_betas_zero_snr`` differs by less."""


def sampler(name: str, process: SchedulerMixin) -> SchedulerMixin:
    """A sampler of a noise process.

    Weights are not pixels: nothing is clipped to [-1, 1] and nothing thresholded.

    Args:
        name: ``ddim`` (deterministic), ``ddpm`` (draws noise at each step) or ``dpm++`` (deterministic, of second
            order: needs the fewest steps).
        process: Any scheduler of diffusers with that noise process.

    Raises:
        UserError: The name is unknown.

    Source: Song et al., arXiv 2010.02502; Ho et al., arXiv 2006.11239; Lu et al., arXiv 2211.01095; trailing steps:
    Lin et al., arXiv 2305.08891.
    """
    if name not in SAMPLERS:
        raise UserError(f"sampler {name!r} is unknown", allowed=", ".join(SAMPLERS), do="choose one of them")
    kind, options = SAMPLERS[name]
    return kind.from_config(process.config, **process_of(process), **_EVERY, **options)


def process_of(scheduler: SchedulerMixin) -> dict:
    """The noise process of a scheduler and what its model predicts, as the arguments that say so."""
    return {name: scheduler.config[name] for name in PROCESS if name in scheduler.config}


def say_process(scheduler: SchedulerMixin) -> None:
    """Have ``Other.from_config(scheduler.config)`` keep the noise process.

    ``from_config`` passes on what differs from the defaults of a scheduler, and those of others are other betas.
    """
    unsaid = scheduler.config.get("_use_default_values")
    if unsaid:
        scheduler.register_to_config(_use_default_values=[name for name in unsaid if name not in PROCESS])


def check_sampler(scheduler: SchedulerMixin, process: Mapping[str, object] | None = None) -> None:
    """Refuse a scheduler that would not sample the model.

    Args:
        scheduler: What was put into a pipeline.
        process: Noise process that the model was trained on (:func:`process_of`); None for that of the scheduler.

    Raises:
        UserError: It is of a kind that is not known to sample weights, its settings do not fit them, or its noise
            process or prediction is not the model's.
    """
    kinds = [base.__name__ for base in type(scheduler).__mro__]
    kind = next((name for name in kinds if name in PREDICTIONS), None)
    if kind is None:
        name = scheduler.__name__ if isinstance(scheduler, type) else kinds[0]
        reason = "it is a class: make one with from_config" if isinstance(scheduler, type) else _REASONS.get(name)
        raise UserError(
            f"{name} cannot sample this model" + (f": {reason}" if reason else ""),
            allowed=", ".join(PREDICTIONS),
            do="take one of them, as in pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)",
        )
    if process is not None:
        _check_process(scheduler, process)
    if scheduler.config.prediction_type not in PREDICTIONS[kind]:
        fitting = [name for name, types in PREDICTIONS.items() if scheduler.config.prediction_type in types]
        raise UserError(
            f"{kind} cannot sample a model with prediction_type {scheduler.config.prediction_type!r}",
            allowed=f"prediction_type {', '.join(PREDICTIONS[kind])}; with this model: {', '.join(fitting)}",
            do="take another scheduler",
        )
    _check_settings(scheduler, kind)


def _check_process(scheduler: SchedulerMixin, process: Mapping[str, object]) -> None:
    do = f"{type(scheduler).__name__}.from_config(pipeline.scheduler.config) keeps that of the model"
    if scheduler.config.prediction_type != process["prediction_type"]:
        raise UserError(
            f"the scheduler takes prediction_type {scheduler.config.prediction_type!r}",
            allowed=f"{process['prediction_type']!r}, as the model was trained",
            do=do,
        )
    own = DDPMScheduler(**process).alphas_cumprod.sqrt()
    actual = scheduler.alphas_cumprod.to(own).sqrt()
    if actual.shape != own.shape or (actual - own).abs().max() > _CLOSE:
        said = ", ".join(f"{name}={value!r}" for name, value in process.items())
        raise UserError("the scheduler has another noise process than the model", allowed=said, do=do)


def _check_settings(scheduler: SchedulerMixin, kind: str) -> None:
    for name, values, why in _WRONG_SETTINGS:
        if scheduler.config.get(name) in values:
            do = f"{kind}.from_config(pipeline.scheduler.config) with {name} left out"
            raise UserError(f"{name} is {scheduler.config[name]!r}: {why}", allowed="another setting", do=do)
    other_sigmas = [name for name in _OTHER_SIGMAS if scheduler.config.get(name)]
    if noise_over_signal(scheduler)[-1] > _STEEP:
        if kind in _LONG_FIRST_STEP and not other_sigmas:
            raise UserError(
                f"the first step of {kind} is too long for the noise of this model (cosine schedule)",
                allowed=", ".join(name for name in PREDICTIONS if name not in _LONG_FIRST_STEP),
                do="take another scheduler, or Heun's with use_karras_sigmas=True",
            )
        fits = ("EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler")
        if other_sigmas and kind not in fits:
            raise UserError(
                f"{kind} with {other_sigmas[0]} cannot sample the noise of this model (cosine schedule)",
                allowed=f"{', '.join(fits)} with it, {kind} without",
                do=f"leave {other_sigmas[0]} out",
            )


def noise_over_signal(scheduler: SchedulerMixin) -> Tensor:
    """The standard deviation of the noise over the share of the signal at each timestep of training ``(T,)``."""
    kept = scheduler.alphas_cumprod.double()
    return ((1 - kept) / kept).sqrt()
