"""Mean-field Gaussian posteriors over the weights of any module, found by variational inference.

The objective is the evidence lower bound, ``E_q log p(D | theta) - kl_weight KL(q || p)``, whose gradients come from
reparameterised samples (Blundell et al., ICML 2015) or from local ones (Kingma et al., NeurIPS 2015; see
:mod:`wsrl.training.local_noise`).

Letters: N examples of a data set, B examples of a batch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from wsrl.durable import write_bytes
from wsrl.errors import UserError
from wsrl.fields.saving import CONFIG_FILE
from wsrl.options import POSITIVE, at_least, check, one_of, option
from wsrl.provenance import write_json_atomic
from wsrl.symmetry.matching.posteriors import Posterior
from wsrl.training.local_noise import LocalNoise, local_layers

POSTERIOR_FILE = "posterior.safetensors"
ADAM_BETAS = (0.9, 0.99)  # the second moment of the gradient by a standard deviation changes as soon as that does


@dataclass(frozen=True, kw_only=True)
class VariationalOptions:
    """The prior, the family of the posterior and its optimisation.

    Attributes:
        prior: ``constant``: every weight has the standard deviation ``prior_scale``; ``fan_in``: those of tensors with
            two or more axes have it divided by the root of the inputs of a unit. The mean is zero.
        prior_scale: Standard deviation of the prior.
        initial_std: Standard deviation of every weight at the start; the means start at the module's weights.
        parametrisation: What makes a standard deviation of a free parameter: ``softplus`` or ``exp``.
        noise: ``weights``: one sample of the weights for a batch; ``local``: one of the outputs of every linear or
            convolutional layer for each example, wherever a layer allows it, and of the weights elsewhere.
        kl_weight: Factor of the divergence from the prior; below 1 the posterior is a tempered one.
        kl_warm_up: Share of the steps in which the factor grows from zero, linearly.
        epochs: Passes over the data.
        batch_size: Examples of a step.
        samples: Samples of the weights in a step.
        learning_rate: Peak of Adam's rate for the means; it falls along half a cosine to zero.
        std_rate: Factor of the learning rate for the free parameters behind standard deviations.
    """

    prior: str = option("fan_in", one_of("constant", "fan_in"))
    prior_scale: float = option(1.0, POSITIVE)
    initial_std: float = option(0.01, POSITIVE)
    parametrisation: str = option("softplus", one_of("softplus", "exp"))
    noise: str = option("local", one_of("local", "weights"))
    kl_weight: float = option(1.0, at_least(0))
    kl_warm_up: float = option(0.0, at_least(0))
    epochs: int = option(10, POSITIVE)
    batch_size: int = option(500, POSITIVE)
    samples: int = option(1, POSITIVE)
    learning_rate: float = option(1e-3, POSITIVE)
    std_rate: float = option(1.0, at_least(0))

    def __post_init__(self):
        check(self)


class MeanFieldPosterior:
    """Trainable means and standard deviations of the trained parameters of a module.

    Args:
        module: Its parameters that require gradients are the initial means; it is not changed.
        options: The prior and the family.

    Attributes:
        means: Leaves by the name of their parameter.
        free: The parameters behind the standard deviations.
        prior_scales: Standard deviation of the prior of each tensor.
    """

    def __init__(self, module: nn.Module, options: VariationalOptions):
        start = {name: each.detach().clone() for name, each in module.named_parameters() if each.requires_grad}
        if not start:
            raise UserError(
                "the module has no parameter that requires gradients", allowed="modules that can be trained"
            )
        self.options = options
        self.means = {name: mean.requires_grad_() for name, mean in start.items()}
        raw = _inverse(options.parametrisation, options.initial_std)
        self.free = {name: torch.full_like(mean, raw).requires_grad_() for name, mean in start.items()}
        self.prior_scales = {name: prior_scale(mean, options) for name, mean in start.items()}

    def stds(self) -> dict[str, Tensor]:
        """Standard deviation of every tensor, above zero."""
        make = functional.softplus if self.options.parametrisation == "softplus" else torch.exp
        return {name: make(free) for name, free in self.free.items()}

    def divergence(self, stds: Mapping[str, Tensor]) -> Tensor:
        """``KL(q || p)`` in nats, in closed form."""
        return sum(gaussian_divergence(mean, stds[name], self.prior_scales[name]) for name, mean in self.means.items())

    def posterior(self) -> Posterior:
        """The posterior as it is now, apart from what is trained."""
        means = {name: mean.detach().clone() for name, mean in self.means.items()}
        return Posterior(means, {name: each.detach().clone() for name, each in self.stds().items()})


def prior_scale(tensor: Tensor, options: VariationalOptions) -> float:
    """Standard deviation of the prior of a parameter."""
    if options.prior == "constant" or tensor.ndim < 2:
        return options.prior_scale
    return options.prior_scale / math.sqrt(tensor[0].numel())


def gaussian_divergence(mean: Tensor, std: Tensor, scale: float) -> Tensor:
    """``KL(N(m, s^2) || N(0, c^2))`` in nats, summed over entries: ``log(c/s) + (s^2 + m^2) / (2 c^2) - 1/2``."""
    squares = (std.square() + mean.square()).sum() / (2 * scale**2)
    return squares - std.log().sum() + mean.numel() * (math.log(scale) - 0.5)


def fit_posterior(
    module: nn.Module,
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    data: tuple[Tensor, Tensor],
    options: VariationalOptions,
    generator: torch.Generator,
    after_step: Callable[[float], None] = lambda objective: None,
) -> Posterior:
    """Fit a posterior by stochastic gradient ascent on the evidence lower bound.

    Args:
        module: From a batch of inputs to outputs. Its weights are where the means start; parameters that don't require
            gradients stay fixed. It is not changed, but for buffers that its own forward pass writes.
        log_likelihood: From outputs and targets of a batch to ``log p(target | output)`` of each example, ``(B,)``.
        data: Inputs and targets of all N examples.
        options: The prior, the family and its optimisation.
        generator: Randomness of the order and of the samples.
        after_step: Called after each step with minus the bound of an example, in nats.

    Returns:
        The posterior.

    Raises:
        UserError: The objective is not finite, or inputs and targets differ in number.
    """
    inputs, targets = data
    if len(inputs) != len(targets) or not len(inputs):
        raise UserError(f"{len(inputs)} inputs come with {len(targets)} targets", allowed="one target for each input")
    family = MeanFieldPosterior(module, options)
    local = local_layers(module, family.means, inputs[:2]) if options.noise == "local" else {}
    num_batches = math.ceil(len(inputs) / options.batch_size)
    optimiser, schedule = _optimiser(family, options, options.epochs * num_batches)
    for epoch in range(options.epochs):
        # Every example once, in a new order.
        order = torch.randperm(len(inputs), generator=generator)
        for number, rows in enumerate(order.tensor_split(num_batches)):
            # The divergence counts more and more while it warms up.
            done = (epoch * num_batches + number) / (options.epochs * num_batches)
            weight = options.kl_weight * (min(1.0, done / options.kl_warm_up) if options.kl_warm_up else 1.0)
            # Minus the bound of one example: E_q -log p(D | theta) + w KL(q || p) / N.
            stds = family.stds()
            fit = -_expected(module, family, stds, local, log_likelihood, inputs[rows], targets[rows], generator)
            loss = fit + weight / len(inputs) * family.divergence(stds)
            if not bool(loss.isfinite()):
                raise UserError(f"the objective is {loss.item()}", do="lower learning_rate or initial_std")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            after_step(loss.item())
    return family.posterior()


def _expected(module, family, stds, local, log_likelihood, inputs, targets, generator) -> Tensor:
    """Mean log-likelihood of a batch under samples of the posterior."""
    inside = {name for names in local.values() for name in names.values()}
    total = 0.0
    for _ in range(family.options.samples):
        weights = {
            name: mean if name in inside else _drawn(mean, stds[name], generator) for name, mean in family.means.items()
        }
        with LocalNoise(module, local, stds, generator):
            total = total + log_likelihood(functional_call(module, weights, (inputs,)), targets).mean()
    return total / family.options.samples


def _drawn(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    return mean + std * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


def _optimiser(family: MeanFieldPosterior, options: VariationalOptions, num_steps: int):
    rate = options.learning_rate
    groups = [
        {"params": list(family.means.values()), "lr": rate},
        {"params": list(family.free.values()), "lr": rate * options.std_rate},
    ]
    optimiser = torch.optim.Adam(groups, betas=ADAM_BETAS, fused=True)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)


def _inverse(parametrisation: str, std: float) -> float:
    """The free parameter of a standard deviation."""
    if parametrisation == "exp":
        return math.log(std)
    return std + math.log(-math.expm1(-std))


def save_posterior(folder: Path | str, posterior: Posterior, config: Mapping[str, object]) -> Path:
    """Write a posterior as safetensors with the keys ``mean.<tensor>`` and ``deviation.<tensor>``, and its config.

    Args:
        folder: ``posterior.safetensors`` and ``config.json`` are put there, the latter first.
            A posterior that is there is thus complete.
        posterior: The posterior.
        config: Plain values: how it was made.

    Returns:
        The safetensors file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"mean": posterior.means, "deviation": posterior.stds}
    tensors = {f"{kind}.{name}": each.contiguous() for kind, all_of in kinds.items() for name, each in all_of.items()}
    write_json_atomic(folder / CONFIG_FILE, dict(config))
    write_bytes(folder / POSTERIOR_FILE, save(tensors))
    return folder / POSTERIOR_FILE


def load_posterior(path: Path | str) -> Posterior:
    """Read a posterior.

    Args:
        path: The safetensors file, or the folder of :func:`save_posterior`.

    Raises:
        UserError: The file is missing, damaged, or holds other keys.
    """
    path = Path(path)
    path = path / POSTERIOR_FILE if path.is_dir() else path
    allowed = "a safetensors file with the keys mean.<tensor> and deviation.<tensor>"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error})", allowed=allowed) from error
    parts: dict[str, dict[str, Tensor]] = {"mean": {}, "deviation": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        if kind not in parts or not name:
            raise UserError(f"{path} holds {key!r}", allowed=allowed, do="save it with save_posterior")
        parts[kind][name] = tensor
    return Posterior(parts["mean"], parts["deviation"])


def classification_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the true class of each example, from logits ``(B, classes)`` and labels ``(B,)``."""
    return -functional.cross_entropy(logits, labels, reduction="none")


def gaussian_log_likelihood(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Log-density ``(B,)`` of targets under Gaussians of known standard deviation around the outputs ``(B, C)``.

    Args:
        scale: Standard deviation of the noise of each channel.
    """

    def log_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
        squares = ((outputs - targets) / scale).square().flatten(1)
        return -0.5 * squares.sum(1) - squares.shape[1] * (math.log(scale) + 0.5 * math.log(2 * math.pi))

    return log_likelihood
