"""Fit some fields of a store again from their signals, and compare: is the store what its manifest says?

Letters: W numbers of a field.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.signals import open_source, source_names
from wsrl.store.made import LEAST_COSINE, PSNR_TOLERANCE
from wsrl.store.reader import WeightStore
from wsrl.store.record import FitResult


@dataclass(frozen=True, kw_only=True)
class RefitOutcome:
    """How a field that was fitted again compares with the stored one.

    Attributes:
        id: Id of the signal.
        same: Whether it is the same field within the tolerances, fitted to the same signal.
        identical: Whether every weight is the same bit for bit.
        max_difference: Largest absolute difference of a weight; NaN where nothing was compared.
        cosine: Cosine between the trainable weights of the two; NaN where nothing was compared.
        psnr_difference: New PSNR minus the stored one, in dB; NaN where nothing was compared.
        reason: Why nothing was compared, or an empty string.
    """

    id: str
    same: bool
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
        return (
            f"{self.id}: {verdict}, largest difference {self.max_difference:.2g}, cosine {self.cosine:.6f}, "
            f"PSNR {self.psnr_difference:+.3f} dB"
        )


def refit_fields(
    store: WeightStore, k: int, *, source=None, seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[RefitOutcome]:
    """Fit ``k`` random fields of a store again with its own settings.

    Args:
        store: The store; its manifest gives source, fit configuration, representation and base field.
        k: Number of fields, all where it has fewer.
        source: The signals, where the manifest cannot name them (a folder or a file); None opens the named source.
        seed: Seed of the choice of rows.
        device: Where to compute.

    Yields:
        One outcome per chosen field. Two fields are the same where the PSNR differs by at most 0.5 dB and the cosine
        of the trainable weights is at least 0.999.

    Raises:
        UserError: The source must be given, is another one, or the store was not fitted by this engine.
    """
    source = stored_source(store) if source is None else source
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
    for result in fit(store.representation, _unchanged(source, records), config, device=device):
        yield _compare(store, records[result.index], result)


def stored_source(store: WeightStore):
    """The named source that a store was built from.

    Args:
        store: The store.

    Raises:
        UserError: It was built from a folder or a file, whose place the manifest does not know.
    """
    description = store.manifest["source"]
    if description["name"] not in source_names():
        raise UserError(
            f"the store was built from {description['name']!r}, whose place it does not know",
            allowed="the folder or file it was built from",
            do="pass it with --data",
        )
    return open_source(description["name"], **stored_options(store))


def stored_options(store: WeightStore) -> dict:
    """The options with which the source of a store was opened; paths are not among them."""
    return dict(store.manifest["source"].get("options", {}))


def stored_fit(store: WeightStore) -> FitConfig:
    """The configuration that a store was fitted with; the batch size, which changes no result, is the default.

    Args:
        store: The store.

    Raises:
        UserError: The manifest holds no configuration of this engine.
    """
    stored = store.manifest["fit"]
    try:
        return FitConfig(**{key: value for key, value in stored.items() if key != "batch_size"})
    except TypeError as error:
        raise UserError(
            f"the store's fit configuration is not one of this engine ({error})",
            allowed="a store that `wsrl build` wrote",
            do="verify it without --refit",
        ) from error


def _unchanged(source, records: dict[int, dict]):
    """The signals of the chosen rows; one that is no longer what was fitted comes as an error."""
    for index, signal_id, signal in read_signals(source, records):
        if not isinstance(signal, SignalError) and signal.sha256() != records[index]["signal_sha256"]:
            signal = SignalError("its signal is no longer the one that was fitted (the hash differs)")
        yield index, signal_id, signal


def _compare(store: WeightStore, record: dict, result: FitResult) -> RefitOutcome:
    if result.weights is None:
        return RefitOutcome(id=record["id"], same=False, reason=result.reason)
    stored, found = store.layout.flatten(store[record["id"]]), store.layout.flatten(result.weights)  # (W,)
    trainable = store.layout.trainable()
    cosine = _cosine(stored[trainable], found[trainable])
    psnr_difference = result.metrics["psnr"] - record["metrics"]["psnr"]
    return RefitOutcome(
        id=record["id"],
        same=abs(psnr_difference) <= PSNR_TOLERANCE and cosine >= LEAST_COSINE,
        identical=torch.equal(stored, found),
        max_difference=float((stored - found).abs().max()),
        cosine=cosine,
        psnr_difference=psnr_difference,
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()).clamp(min=torch.finfo(torch.float64).tiny))
