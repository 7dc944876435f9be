"""Samplers of diffusers, set up for weights: nothing is clipped, and steps start at pure noise."""

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

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
    return kind.from_config(process.config, **_EVERY, **options)
