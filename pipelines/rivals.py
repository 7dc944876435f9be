"""What the fitting engine is measured against: a plain torch loop, and JAX with vmap and jit.

Both start from the same numbers as the engine, see the full grid in each step, and follow the same learning rates.

Letters: N fields, W numbers of a field, P points, F features, C channels.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrl.errors import UserError
from wsrl.fields.network import activate
from wsrl.fields.representation import LayerParts, Representation


class LoopLayer(nn.Module):
    """One linear layer as a researcher writes it: its own weight, or a frozen one with a low-rank adapter."""

    def __init__(self, part: LayerParts, numbers: dict[str, Tensor], mask: Tensor | None):
        super().__init__()
        self.form, self.is_adapted = part.form, part.down is not None
        for name in ("weight", "bias"):
            source = getattr(part, name)
            if isinstance(source, str):
                self.register_parameter(name, nn.Parameter(numbers[source].clone()))
            else:
                self.register_buffer(name, source.detach().clone())
        if self.is_adapted:
            self.down, self.up = (nn.Parameter(numbers[name].clone()) for name in (part.down, part.up))
            self.register_buffer("mask", mask)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.adapted() if self.is_adapted else self.weight, self.bias)

    def adapted(self) -> Tensor:
        """The weight that the adapter makes."""
        factor = self.up @ (self.down if self.mask is None else self.down * self.mask)
        if self.form == "exp":
            return self.weight * torch.exp(factor)
        if self.form == "product":
            return self.weight * factor
        assert self.form == "add", f"no loop for the form {self.form}"
        return self.weight + factor


class LoopField(nn.Module):
    """One field: encoding, layers, activations; coordinates ``(P, D)`` to values ``(P, C)``."""

    def __init__(self, representation: Representation, numbers: Tensor):
        super().__init__()
        tensors = representation.layout.unflatten(numbers)
        masks = {s.name: s.trainable().float() for s in representation.layout if s.frozen is not None}
        parts = representation.parts()
        self.encoding, self.config = representation.encoding, representation.field_config
        self.layers = nn.ModuleList(LoopLayer(part, tensors, masks.get(part.down)) for part in parts)

    def forward(self, coords: Tensor) -> Tensor:
        hidden = self.encoding(coords).mT
        for i, layer in enumerate(self.layers[:-1]):
            hidden = activate(self.config, layer(hidden), first=i == 0)
        return self.layers[-1](hidden)


@dataclass(frozen=True, kw_only=True)
class LoopOutcome:
    """One field fitted by the loop.

    Attributes:
        psnr: Of the field at the end, in dB, for values in [0, 1].
        steps: Steps that it took.
    """

    psnr: float
    steps: int


def fit_by_loop(
    representation: Representation,
    numbers: Tensor,
    coords: Tensor,
    values: Tensor,
    rate: Callable[[int], float],
    steps: int,
    target_psnr: float | None = None,
) -> LoopOutcome:
    """Fit one field with modules, autograd and ``torch.optim.Adam``, all points in each step.

    Args:
        representation: What the numbers are.
        numbers: Start ``(W,)``.
        coords: Points ``(P, D)``.
        values: Targets ``(P, C)`` in [0, 1].
        rate: Learning rate by step.
        steps: Steps at most.
        target_psnr: Stop as soon as the loss of a step is that good; None takes all steps.
    """
    field = LoopField(representation, numbers)
    optimizer = torch.optim.Adam([p for p in field.parameters() if p.requires_grad], lr=rate(0))
    goal = None if target_psnr is None else 10 ** (-target_psnr / 10)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        loss = F.mse_loss(field(coords), values)
        if goal is not None and loss.item() <= goal:
            return LoopOutcome(psnr=-10 * math.log10(loss.item()), steps=step)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return LoopOutcome(psnr=-10 * math.log10(F.mse_loss(field(coords), values).item()), steps=steps)


def loop_over(
    representation: Representation,
    coords: Tensor,
    values: Tensor,
    rate: Callable[[int], float],
    steps: int,
    target_psnr: float | None = None,
) -> list[LoopOutcome]:
    """Fit fields from their shared start, one after the other.

    Args:
        representation: What the numbers are.
        coords: Points ``(P, D)``.
        values: Targets ``(N, P, C)`` in [0, 1].
        rate: As for :func:`fit_by_loop`.
        steps: As for :func:`fit_by_loop`.
        target_psnr: As for :func:`fit_by_loop`.
    """
    start = representation.layout.flatten(representation.initial())
    return [fit_by_loop(representation, start, coords, own, rate, steps, target_psnr) for own in values]


def fewest_steps(
    contest: Callable[[float], Sequence[LoopOutcome]], rates: Sequence[float]
) -> tuple[float, dict[float, float]]:
    """The learning rate at which a loop takes the fewest steps, and the mean steps at every rate.

    Args:
        contest: Fits some fields at a constant rate.
        rates: Rates that are tried.
    """
    steps = {rate: statistics.fmean(outcome.steps for outcome in contest(rate)) for rate in rates}
    return min(rates, key=steps.__getitem__), steps


class JaxFields:
    """A batch of fields under ``vmap`` and ``jit`` with optax's Adam; all steps are one compiled loop.

    Args:
        representation: What the numbers are.
        coords: Points ``(P, D)``; they are encoded once.
        rates: Learning rate of every step.

    Raises:
        UserError: JAX or optax is not installed.
    """

    def __init__(self, representation: Representation, coords: Tensor, rates: Sequence[float]):
        try:
            import jax
            import optax
        except ImportError as error:
            raise UserError(
                f"the benchmark needs {error.name}, which is not installed",
                allowed="jax and optax",
                do="pip install -c constraints.txt -e '.[bench]'",
            ) from error
        self.jax, self.representation = jax, representation
        jnp = jax.numpy
        self._features = jnp.asarray(representation.encoding(coords).mT.numpy())  # (P, F)
        self._mask = jnp.asarray(representation.layout.trainable().float().numpy())
        table = jnp.asarray(list(rates))
        self._optimizer = optax.adam(lambda step: table[step])
        self._num_steps = len(table)
        self._parts = [
            {name: jnp.asarray(v.detach().numpy()) if isinstance(v, Tensor) else v for name, v in vars(part).items()}
            for part in representation.parts()
        ]
        self._compiled = jax.jit(self._fit)

    def _tensors(self, numbers):
        tensors, start = {}, 0
        for spec in self.representation.layout:
            tensors[spec.name] = numbers[start : start + spec.size].reshape(spec.shape)
            start += spec.size
        return tensors

    def _values(self, numbers):
        """Values ``(P, C)`` of one field."""
        jnp, config = self.jax.numpy, self.representation.field_config
        tensors, hidden = self._tensors(numbers), self._features
        for i, part in enumerate(self._parts):
            weight, bias = (tensors[v] if isinstance(v, str) else v for v in (part["weight"], part["bias"]))
            if part["down"] is not None:
                factor = tensors[part["up"]] @ tensors[part["down"]]
                weight = {"exp": lambda w, f: w * jnp.exp(f), "product": jnp.multiply, "add": jnp.add}[part["form"]](
                    weight, factor
                )
            hidden = hidden @ weight.T + bias
            if i < len(self._parts) - 1:
                if config.activation == "sine":
                    hidden = jnp.sin(config.omega * hidden if i == 0 else hidden)
                elif config.activation == "silu":
                    hidden = self.jax.nn.silu(hidden)
                else:
                    hidden = self.jax.nn.leaky_relu(hidden, 0.2)
        return hidden

    def _fit(self, numbers, targets):
        jax, jnp = self.jax, self.jax.numpy

        def loss(one, target):
            return jnp.mean((self._values(one) - target) ** 2)

        def step(carry, _):
            numbers, state = carry
            gradients = jax.vmap(jax.grad(loss))(numbers, targets) * self._mask
            updates, state = self._optimizer.update(gradients, state)
            return (numbers + updates, state), None

        (numbers, _), _ = jax.lax.scan(step, (numbers, self._optimizer.init(numbers)), None, length=self._num_steps)
        return numbers, jax.vmap(loss)(numbers, targets)

    def fit(self, numbers: Tensor, targets: Tensor) -> list[float]:
        """PSNR in dB of every field after all steps.

        Args:
            numbers: Starts ``(N, W)``.
            targets: Values ``(N, P, C)`` in [0, 1].
        """
        jnp = self.jax.numpy
        _, losses = self._compiled(jnp.asarray(numbers.numpy()), jnp.asarray(targets.numpy()))
        return [-10 * math.log10(loss) for loss in losses.block_until_ready().tolist()]
