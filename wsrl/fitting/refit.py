"""Fit some fields of a store again from their signals, and compare: is the store what its manifest says?

Letters: W numbers of a field.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fields.layout import Layout
from wsrl.fitting.engine import FitConfig, Item, fit, read_signals
from wsrl.fitting.fit_config import SPEED_KEYS
from wsrl.store.reader import WeightStore
from wsrl.store.remaking import LEAST_COSINE, PSNR_TOLERANCE
from wsrl.store.rows import FitResult
from wsrl.store.schema import is_imported
from wsrl.store.source import open_store_source

ROUNDING = 6e-8
MEDIAN_DRIFTS = 4.0
LARGEST_DRIFTS = 2.0
PSNR_SLACK = 0.05


@dataclass(frozen=True, kw_only=True)
class RefitOutcome:
    """How a field that was fitted again compares with the stored one.

    Attributes:
        id: Id of the signal.
        same: Whether it is the same field within the tolerances, fitted to the same signal.
        drifted: Whether it is called the same because rounding alone moves such fields as far.
        identical: Whether every weight is the same bit for bit.
        max_difference: Largest absolute difference of a weight; NaN where nothing was compared.
        cosine: Cosine between the trainable weights of the two; NaN where nothing was compared.
        psnr_difference: New PSNR minus the stored one, in dB; NaN where nothing was compared.
        reason: Why nothing was compared, or an empty string.
    """

    id: str
    same: bool
    drifted: bool = False
    identical: bool = False
    max_difference: float = float("nan")
    cosine: float = float("nan")
    psnr_difference: float = float("nan")
    reason: str = ""

    def __str__(self) -> str:
        verdict = "same" if self.same else "DIFFERENT"
        if self.reason:
            return f"{self.id}: {verdict}: {self.reason}"
        if self.identical:
            return f"{self.id}: {verdict}, bit for bit"
        verdict += " (as far as rounding moves it)" if self.drifted else ""
        return (
            f"{self.id}: {verdict}, largest difference {self.max_difference:.2g}, cosine {self.cosine:.6f}, "
            f"PSNR {self.psnr_difference:+.3f} dB"
        )


def refit_fields(
    store: WeightStore, k: int, *, source=None, seed: int = 0, device: torch.device | str = "cpu"
) -> list[RefitOutcome]:
    """Fit ``k`` random fields of a store again with its own settings.

    Two fields are the same where the PSNR differs by at most 0.5 dB and the cosine of the trainable weights is at least
    0.999. Where some are further apart, every signal is fitted once more with its values disturbed by the rounding
    error of float32: no fit on another machine can be nearer than that. Stored and new fields are the same then where
    the median distance is at most four times the median of that drift, and their own at most twice the largest.

    Args:
        store: The store; its manifest gives source, fit configuration, representation and base field.
        k: Number of fields, all where it has fewer.
        source: The signals, where the manifest cannot name them (a folder or a file); None opens the named source.
        seed: Seed of the choice of rows.
        device: Where to compute.

    Returns:
        One outcome per chosen field.

    Raises:
        UserError: The source must be given, is another one, or the store was not fitted by this engine.
    """
    _refuse_imported(store)
    # random rows of the store, and the signals that they were fitted to
    source = open_store_source(store) if source is None else source
    config = stored_fit(store)
    rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))[: max(0, k)].sort().values
    records = {record["index"]: record for record in (store.record(row) for row in rows.tolist())}
    for index, record in records.items():
        if index >= len(source) or source.ids[index] != record["id"]:
            raise UserError(
                f"the source {source.name} has no signal {record['id']!r} at place {index}, where the store has one",
                allowed="the data that the store was built from, with the same options",
                do="pass them with --data",
            )
    # fitted again: enough where all are within the tolerances
    options = {"device": device, "prior_widths": store.prior_widths}
    refits = list(fit(store.representation, _unchanged(source, records), config, **options))
    outcomes = [_compare(store.layout, _stored(store, records[result.index]), result) for result in refits]
    if all(outcome.same or outcome.reason for outcome in outcomes):
        return outcomes
    # else fitted once more from disturbed values: how far rounding alone moves a field
    fitted = {result.index: result for result in refits}
    disturbed = fit(store.representation, _disturbed(_unchanged(source, records)), config, **options)
    drift = [_compare(store.layout, fitted[result.index], result) for result in disturbed]
    return _within_drift(outcomes, [outcome for outcome in drift if not outcome.reason])


def _refuse_imported(store: WeightStore) -> None:
    if is_imported(store.manifest):
        raise UserError(
            f"the fields of {store.directory} were imported: there is nothing to refit them from",
            allowed="a store that `wsrl build` fitted",
            do="verify it without --refit, which checks every byte of every row all the same",
        )


def stored_fit(store: WeightStore) -> FitConfig:
    """The configuration that a store was fitted with; the batch size, which changes no result, is the default.

    Args:
        store: The store.

    Raises:
        UserError: The manifest holds no configuration of this engine.
    """
    stored = store.manifest["fit"]
    try:
        return FitConfig(**{key: value for key, value in stored.items() if key not in SPEED_KEYS})
    except TypeError as error:
        raise UserError(
            f"the store's fit configuration is not one of this engine ({error})",
            allowed="a store that `wsrl build` wrote",
            do="verify it without --refit",
        ) from error


def _unchanged(source, records: dict[int, dict]) -> Iterator[Item]:
    """The signals of the chosen rows; one that is no longer what was fitted comes as an error."""
    for index, signal_id, signal in read_signals(source, records):
        if not isinstance(signal, SignalError) and signal.sha256() != records[index]["signal_sha256"]:
            signal = SignalError("its signal is no longer the one that was fitted (the hash differs)")
        yield index, signal_id, signal


def _disturbed(signals: Iterator[Item]) -> Iterator[Item]:
    """The same signals with values that are off by the rounding error of float32."""
    generator = torch.Generator().manual_seed(0)
    for index, signal_id, signal in signals:
        if not isinstance(signal, SignalError):
            noise = ROUNDING * torch.randn(signal.values.shape, generator=generator)
            signal = replace(signal, values=signal.values + noise)
        yield index, signal_id, signal


def _stored(store: WeightStore, record: dict) -> FitResult:
    """A row of the store as what the engine gave for it."""
    return FitResult(index=record["index"], id=record["id"], weights=store[record["id"]], metrics=record["metrics"])


def _compare(layout: Layout, one: FitResult, other: FitResult) -> RefitOutcome:
    """How a second fit of a signal compares with the first."""
    failed = next((result for result in (other, one) if result.weights is None), None)
    if failed is not None:
        return RefitOutcome(id=one.id, same=False, reason=failed.reason)
    first, second = layout.flatten(one.weights), layout.flatten(other.weights)  # (W,)
    trainable = layout.trainable()
    cosine = _cosine(first[trainable], second[trainable])
    psnr_difference = other.metrics["psnr"] - one.metrics["psnr"]
    return RefitOutcome(
        id=one.id,
        same=abs(psnr_difference) <= PSNR_TOLERANCE and cosine >= LEAST_COSINE,
        identical=torch.equal(first, second),
        max_difference=float((first - second).abs().max()),
        cosine=cosine,
        psnr_difference=psnr_difference,
    )


def _within_drift(outcomes: list[RefitOutcome], drift: list[RefitOutcome]) -> list[RefitOutcome]:
    """The outcomes, those that are no further apart than rounding explains called the same."""
    compared = [outcome for outcome in outcomes if not outcome.reason]
    if not drift:
        return outcomes
    # the typical field is no further than a few times the typical drift, in weights and in decibels
    explained = all(
        median(distance(outcome) for outcome in compared)
        <= slack + MEDIAN_DRIFTS * median(distance(outcome) for outcome in drift)
        for distance, slack in ((_apart, 1 - LEAST_COSINE), (_decibels, PSNR_SLACK))
    )
    # and a single one no further than twice the largest drift
    furthest = {distance: LARGEST_DRIFTS * max(map(distance, drift)) for distance in (_apart, _decibels)}
    return [
        replace(outcome, same=True, drifted=True)
        if explained
        and not (outcome.same or outcome.reason)
        and all(distance(outcome) <= limit for distance, limit in furthest.items())
        else outcome
        for outcome in outcomes
    ]


def _apart(outcome: RefitOutcome) -> float:
    return 1 - outcome.cosine


def _decibels(outcome: RefitOutcome) -> float:
    return abs(outcome.psnr_difference)


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()).clamp(min=torch.finfo(torch.float64).tiny))
