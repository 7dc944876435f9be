"""The fitting engine: many fields at once, each as if it were alone.

Letters: B fields, W numbers of a field, P points, D coordinates, C channels.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fields.representation import Representation
from wsrl.fitting.batch_size import suitable_size, usual_size
from wsrl.fitting.fit_config import FitConfig
from wsrl.fitting.loss import loss_of
from wsrl.fitting.slots import Done, Slots
from wsrl.signals.fidelity import in_quantity, psnr, sign_agreement, ssim
from wsrl.signals.signal import Signal
from wsrl.store.rows import FitResult

__all__ = ["FitConfig", "field_seed", "fit", "optimise", "read_signals"]

MEASURED_STEPS = 10_000  # more than the trial of a batch size takes

READ_AHEAD = 4

Item = tuple[int, str, Signal | SignalError]


def field_seed(seed: int, signal_id: str) -> int:
    """The seed of one field: it depends on the build's seed and the signal's id alone, never on its neighbours."""
    digest = hashlib.blake2b(f"{seed}:{signal_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def read_signals(source, indices: Iterable[int]) -> Iterator[Item]:
    """Signals of a source one by one, read ahead of their use; one that cannot be read comes as its error."""
    ahead: deque[tuple[int, Future]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="signals") as reader:
        try:
            for index in indices:
                ahead.append((index, reader.submit(source.__getitem__, index)))
                if len(ahead) > READ_AHEAD:
                    yield _read(source, *ahead.popleft())
            while ahead:
                yield _read(source, *ahead.popleft())
        finally:  # the reader of an abandoned iteration does not go on
            reader.shutdown(wait=False, cancel_futures=True)


def _read(source, index: int, reading: Future) -> Item:
    try:
        return index, source.ids[index], reading.result()
    except SignalError as error:
        return index, source.ids[index], error


@dataclass(frozen=True)
class Place:
    """What a field in a slot belongs to.

    Attributes:
        index: Index of the signal in its source.
        signal: The signal.
        order: Order ``(P,)`` in which its points were dealt out; None for that of the signal.
    """

    index: int
    signal: Signal
    order: Tensor | None

    def given(self, tensor: Tensor | None) -> Tensor | None:
        """Coordinates, values or weights of the signal in the order of the points."""
        return tensor if tensor is None or self.order is None else tensor[self.order]


def fit(
    representation: Representation,
    signals: Iterable[Item],
    config: FitConfig,
    *,
    device: torch.device | str = "cpu",
    start: dict[str, Tensor] | None = None,
    prior_widths: Tensor | None = None,
) -> Iterator[FitResult]:
    """Fit one field to every signal.

    Args:
        representation: What the weights are; moved to ``device``.
        signals: Index, id and signal (or the reason why there is none), as :func:`read_signals` yields them.
        config: Steps, rate, stopping rule.
        device: Where to compute; results come back on the CPU.
        start: Weights that every field starts from, its frozen entries included; None for those of the representation.
        prior_widths: Widths ``(W,)`` of the prior where ``config.prior_scale`` is ``data``; None for ones.

    Yields:
        One result per signal, as soon as it is there. A signal without a field gives a result with status ``failed``
        and its reason; one that did not reach the asked-for quality gives its field with status ``short``.
    """
    representation.to(device)
    slots: Slots | None = None
    is_shared = start is not None or representation.config.start == "shared"
    shared_start = representation.layout.flatten(start or representation.initial()) if is_shared else None
    for index, signal_id, signal in signals:
        problem = _problem(representation, signal)
        if problem:
            yield FitResult(index=index, id=signal_id, status="failed", reason=problem)
            continue
        if slots is None or not _fits(slots, signal):
            yield from _empty(slots, config)
            slots = _slots_for(representation, signal, config, device, prior_widths)
        seed = field_seed(config.seed, signal.id)
        numbers = shared_start if is_shared else own_start(representation, seed)
        place = Place(index, signal, _order(signal, config, seed))
        own = None if slots.shared else place.given(signal.coords)
        slots.put(place, numbers, place.given(signal.values), _peak(signal), own, place.given(signal.weights))
        while slots.full:
            yield from _results(representation, slots.advance(), config)
    yield from _empty(slots, config)


def _slots_for(
    representation: Representation,
    signal: Signal,
    config: FitConfig,
    device: torch.device | str,
    prior_widths: Tensor | None,
) -> Slots:
    """Slots for signals on the points of this one, or with as many points of their own where it is on no grid."""
    shared = signal.form.grid is not None
    if config.target_psnr is not None and signal.form.has_inside:
        wrong = f"fit.target_psnr is {config.target_psnr} and the values are of the kind {signal.form.quantity}"
        raise UserError(wrong, allowed="a target for pictures", do="leave it out and set fit.steps")
    if config.points_per_step is not None and shared:
        wrong = f"fit.points_per_step is {config.points_per_step} and the points form a grid"
        raise UserError(wrong, allowed="fit.interleave on grids", do="leave out fit.points_per_step")
    if config.interleave_by == "error" and not shared:
        wrong = "fit.interleave_by is 'error' and the points form no grid"
        raise UserError(wrong, allowed="place", do="leave it out")
    shape = {"coords": signal.coords, "grid": signal.form.grid, "shared": shared, "device": device}
    shape |= {"weighted": signal.weights is not None, "loss": loss_of(signal.form), "prior_widths": prior_widths}
    endless = replace(config, steps=MEASURED_STEPS, target_psnr=None, interleave_share=1.0)
    num = config.batch_size or usual_size(config, device, None if shared else len(signal.coords))
    num = num or suitable_size(lambda num: Slots(representation, endless, num, **shape), representation)
    return Slots(representation, config, num, **shape)


def _fits(slots: Slots, signal: Signal) -> bool:
    """Whether a signal has the points that the slots share, or as many points of its own as they have room for."""
    if slots.grid != signal.form.grid or slots.num_points != len(signal.coords):
        return False
    if slots.loss != loss_of(signal.form) or slots.weighted != (signal.weights is not None):
        return False
    return not slots.shared or signal.coords is slots.coords or torch.equal(signal.coords, slots.coords)


def _empty(slots: Slots | None, config: FitConfig) -> Iterator[FitResult]:
    """Finish the fields in the slots."""
    while slots:
        yield from _results(slots.representation, slots.advance(), config)


def _order(signal: Signal, config: FitConfig, seed: int) -> Tensor | None:
    """The order in which the points of a signal are dealt out to the steps; None where every step sees all."""
    if config.points_per_step is None:
        return None
    return torch.randperm(len(signal.coords), generator=torch.Generator().manual_seed(seed))


def own_start(representation: Representation, seed: int) -> Tensor:
    """Numbers ``(W,)`` that a field starts from where the fields do not share a start."""
    return representation.layout.flatten(representation.initial(torch.Generator().manual_seed(seed)))


def _peak(signal: Signal) -> float:
    low, high = signal.form.value_range
    return high - low


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


def optimise(
    representation: Representation,
    weights: dict[str, Tensor],
    coords: Tensor,
    targets: Tensor,
    config: FitConfig,
    *,
    grid: tuple[int, ...] | None = None,
) -> dict[str, Tensor]:
    """Fit given starts to given values at shared points, all of them to the end.

    Args:
        representation: What the weights are.
        weights: Starts ``(B, *shape)``; not changed.
        coords: Points ``(P, D)``.
        targets: Values ``(B, P, C)`` in [0, 1].
        config: Steps, rate, stopping rule.
        grid: Grid of the points, or None.

    Returns:
        Weights ``(B, *shape)``. Frozen entries are those of ``weights``, bit for bit.
    """
    slots = Slots(representation, config, len(targets), coords=coords, grid=grid, device=targets.device)
    for row, (start, values) in enumerate(zip(representation.layout.flatten(weights), targets)):
        slots.put(row, start, values, 1.0)
    found = {}
    while slots:
        found |= {done.tag: done.numbers for done in slots.advance()}
    return representation.layout.unflatten(torch.stack([found[row] for row in range(len(targets))]))


def _results(representation: Representation, done: list[Done], config: FitConfig) -> Iterator[FitResult]:
    """The finished rows of some fields, in their order."""
    for form, group in groupby(done, key=lambda field: field.tag.signal.form):
        fields = list(group)
        values = torch.stack([field.values for field in fields])
        targets = torch.stack([field.tag.given(field.tag.signal.values) for field in fields])
        readable = in_quantity(values, form)
        losses = loss_of(form)(values, targets)
        if fields[0].tag.signal.weights is not None:
            weights = torch.stack([field.tag.given(field.tag.signal.weights) for field in fields])
            losses = losses * weights.unsqueeze(-1)
        measured = {"psnr": psnr(readable, targets, form.value_range), "loss": losses.mean((1, 2))}
        if form.grid is not None:
            measured["ssim"] = ssim(values, targets, form.grid, form.value_range)
        if form.has_inside:
            measured["sign_agreement"] = sign_agreement(values, targets, form)
        lists = {name: scores.tolist() for name, scores in measured.items()}
        for place, field in enumerate(fields):
            metrics = {name: scores[place] for name, scores in lists.items()} | {"steps": float(field.steps)}
            yield _result(representation, field, metrics, config)


def _result(representation: Representation, done: Done, metrics: dict[str, float], config: FitConfig) -> FitResult:
    """The finished row of one field, or a failure where it diverged."""
    index, signal = done.tag.index, done.tag.signal
    common = {
        "index": index,
        "id": signal.id,
        "seed": field_seed(config.seed, signal.id),
        "signal_sha256": signal.sha256(),
        "label": signal.label,
        "split": signal.split,
    }
    if not math.isfinite(metrics["loss"]) or not torch.isfinite(done.numbers).all():
        reason = f"diverged: its loss is {metrics['loss']} after {done.steps} steps"
        return FitResult(**common, status="failed", reason=f"{reason}. What to do: lower fit.learning_rate")
    weights = representation.layout.unflatten(done.numbers)
    short = config.target_psnr is not None and metrics["psnr"] < config.target_psnr
    return FitResult(**common, weights=weights, metrics=metrics, status="short" if short else "ok")
