"""The fitting engine: many fields at once, each as if it were alone.

Letters: B slots of a batch, P points, D coordinates, C channels, F features of the encoding.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fields.representation import Representation
from wsrl.signals.fidelity import psnr, ssim
from wsrl.signals.signal import Signal
from wsrl.store.record import FitResult

Item = tuple[int, str, Signal | SignalError]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How every field is fitted.

    Attributes:
        steps: Adam steps, the full signal in each.
        learning_rate: Step size after the warm-up; decays to zero by a cosine.
        warmup: Share of the steps over which the step size rises linearly.
        batch_size: Fields that are fitted together; changes the speed, not the result (beyond rounding).
        seed: Seed from which, with its id, each field's own seed is made.
    """

    steps: int = 300
    learning_rate: float = 0.05
    warmup: float = 0.05
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"fit.{name} is {getattr(self, name)}", allowed=f"{least} or more", do=f"set fit.{name}"
                )
        if not self.learning_rate > 0 or not 0 <= self.warmup < 1:
            raise UserError(
                f"fit.learning_rate is {self.learning_rate}, fit.warmup {self.warmup}",
                allowed="a positive rate, a warm-up share in [0, 1)",
                do="mend them in the configuration",
            )

    def rate(self, step: int) -> float:
        """Step size at ``step``, counted from zero."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def field_seed(seed: int, signal_id: str) -> int:
    """The seed of one field: it depends on the build's seed and the signal's id alone, never on its neighbours."""
    digest = hashlib.blake2b(f"{seed}:{signal_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def read_signals(source, indices: Iterable[int]) -> Iterator[Item]:
    """Signals of a source one by one; one that cannot be read comes as its error."""
    for index in indices:
        try:
            yield index, source.ids[index], source[index]
        except SignalError as error:
            yield index, source.ids[index], error


def fit(
    representation: Representation, signals: Iterable[Item], config: FitConfig, *, device: torch.device | str = "cpu"
) -> Iterator[FitResult]:
    """Fit one field to every signal.

    Args:
        representation: What the weights are; moved to ``device``.
        signals: Index, id and signal (or the reason why there is none), as :func:`read_signals` yields them.
        config: Steps, rate and batch size.
        device: Where to compute; results come back on the CPU.

    Yields:
        One result per signal, those of a batch in the order of their signals. A signal without a field gives a result
        with status ``failed`` and its reason.
    """
    representation.to(device)
    batch: list[tuple[int, Signal]] = []
    for index, signal_id, signal in signals:
        problem = _problem(representation, signal)
        if problem:
            yield FitResult(index=index, id=signal_id, status="failed", reason=problem)
            continue
        if batch and signal.values.shape != batch[0][1].values.shape:
            yield from _fit_batch(representation, batch, config, device)
            batch = []
        batch.append((index, signal))
        if len(batch) == config.batch_size:
            yield from _fit_batch(representation, batch, config, device)
            batch = []
    if batch:
        yield from _fit_batch(representation, batch, config, device)


def _problem(representation: Representation, signal: Signal | SignalError) -> str:
    """Why a signal cannot be fitted, or an empty string."""
    if isinstance(signal, SignalError):
        return str(signal)
    found = (signal.coords.shape[-1], signal.values.shape[-1])
    expected = (representation.in_features, representation.out_features)
    if found != expected:
        wanted = f"the representation maps {expected[0]} to {expected[1]}"
        return f"maps {found[0]} coordinates to {found[1]} channels; {wanted}"
    if not (torch.isfinite(signal.values).all() and torch.isfinite(signal.coords).all()):
        return "has values or coordinates that are not finite"
    return ""


def _starts(representation: Representation, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Weights ``(B, *shape)`` to start from: one shared start repeated, or each field's own."""
    if representation.config.start == "shared":
        return {k: v.expand(len(seeds), *v.shape).clone() for k, v in representation.initial().items()}
    starts = [representation.initial(torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([start[name] for start in starts]) for name in starts[0]}


def optimise(
    representation: Representation, weights: dict[str, Tensor], features: Tensor, target: Tensor, config: FitConfig
) -> dict[str, Tensor]:
    """Minimise every field's mean squared error with Adam; the fields share nothing but the loop.

    Args:
        representation: What the weights are.
        weights: Starts ``(B, *shape)``; not changed.
        features: Encoded points ``(F, P)`` or ``(B, F, P)``.
        target: Values ``(B, C, P)``.
        config: Steps and rate.

    Returns:
        Weights ``(B, *shape)``. Frozen entries are those of ``weights``, bit for bit.
    """
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    masks = {spec.name: spec.trainable().to(target.device) for spec in representation.layout if spec.frozen is not None}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=config.learning_rate, fused=True)
    scale = 1.0 / (target.shape[-1] * target.shape[-2])
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = config.rate(step)
        optimizer.zero_grad()
        # Each field gets the gradient of its own mean squared error, entry by entry: nothing is reduced over the slots,
        # so one that diverges leaves the others alone.
        found = representation.evaluate_encoded(parameters, features)
        found.backward((found.detach() - target) * (2 * scale))
        for name, mask in masks.items():
            parameters[name].grad.mul_(mask)  # Adam leaves an entry whose gradient is always zero where it is
        optimizer.step()
    return {name: tensor.detach() for name, tensor in parameters.items()}


def _fit_batch(
    representation: Representation, batch: list[tuple[int, Signal]], config: FitConfig, device: torch.device | str
) -> Iterator[FitResult]:
    signals = [signal for _, signal in batch]
    first = signals[0].coords
    shared = all(signal.coords is first for signal in signals)
    coords = first if shared else torch.stack([signal.coords for signal in signals])
    values = torch.stack([signal.values for signal in signals])
    seeds = [field_seed(config.seed, signal.id) for signal in signals]
    starts = {name: tensor.to(device) for name, tensor in _starts(representation, seeds).items()}
    features = representation.encoding(coords.to(device))
    weights = optimise(representation, starts, features, values.mT.contiguous().to(device), config)
    with torch.no_grad():
        found = representation.evaluate_encoded(weights, features).mT.cpu()
    weights = {name: tensor.cpu() for name, tensor in weights.items()}
    for slot, (index, signal) in enumerate(batch):
        own = {name: tensor[slot].clone() for name, tensor in weights.items()}
        yield _result(index, signal, seeds[slot], own, found[slot], config)


def _result(
    index: int, signal: Signal, seed: int, weights: dict[str, Tensor], found: Tensor, config: FitConfig
) -> FitResult:
    """The finished row of one field, or a failure where it diverged."""
    common = {
        "index": index,
        "id": signal.id,
        "seed": seed,
        "signal_sha256": signal.sha256(),
        "label": signal.label,
        "split": signal.split,
    }
    loss = float((found - signal.values).square().mean())
    if not math.isfinite(loss) or not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        reason = f"diverged: its loss is {loss} after {config.steps} steps. What to do: lower fit.learning_rate"
        return FitResult(**common, status="failed", reason=reason)
    metrics = {
        "psnr": float(psnr(found[None], signal.values[None], signal.value_range)),
        "loss": loss,
        "steps": float(config.steps),
    }
    if signal.grid is not None:
        metrics["ssim"] = float(ssim(found[None], signal.values[None], signal.grid, signal.value_range))
    return FitResult(**common, weights=weights, metrics=metrics)
