"""One row of a store: what the engine yields for a signal and what a shard keeps of it."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The outcome for one signal.

    Attributes:
        index: Position of the signal in its source.
        id: Stable name of the signal.
        status: ``ok`` for a fitted field; ``short`` for one that did not reach the asked-for quality; ``failed`` where
            there is none (see ``reason``).
        weights: One tensor per entry of the layout, on the CPU, without a batch axis; None where failed.
        metrics: Plain numbers such as ``psnr`` (dB), ``ssim``, ``loss`` (mean squared error), ``steps``.
        seed: Seed of the field's own random numbers.
        signal_sha256: Hash of the signal's coordinates and values.
        label: Class name, or None.
        split: Split name, or None.
        reason: Why there is no field, one line.
    """

    index: int
    id: str
    status: str = "ok"
    weights: dict[str, Tensor] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    signal_sha256: str = ""
    label: str | None = None
    split: str | None = None
    reason: str = ""
