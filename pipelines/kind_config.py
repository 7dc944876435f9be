"""What the comparisons of representations share: their rows, and the sweep of learning rates of each."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.provenance import merge_metrics
from wsrl.signals.source import Source


@dataclass(frozen=True, kw_only=True)
class KindConfig:
    """One row of the table.

    Attributes:
        representation: What the weights are.
        learning_rates: Rates of the sweep; the best by mean PSNR is used for the store.
    """

    representation: RepresentationConfig
    learning_rates: tuple[float, ...]


def sweep(
    source: Source, indices: Sequence[int], out: Path, name: str, kind: KindConfig, config: FitConfig
) -> dict[float, float]:
    """Mean PSNR in dB of some signals for each learning rate, outcomes without a field counting as 0 dB.

    Args:
        source: Where the signals are.
        indices: Places of the signals.
        out: Folder with the base field in ``base``, and of ``sweep.json``: rates that stand in it are not tried again.
        name: Name of the kind.
        kind: Its representation and rates.
        config: How fields are fitted, but for the rate.
    """
    path = out / "sweep.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    base = BaseField.from_pretrained(out / "base") if kind.representation.is_adapter else None
    representation = Representation.build(kind.representation, base, **source.form.sizes)
    rates = {}
    for rate in kind.learning_rates:
        key = f"{name}.{rate:g}"
        if key not in known:
            found = fit(representation, read_signals(source, indices), replace(config, learning_rate=rate))
            known[key] = float(np.mean([result.metrics.get("psnr", 0.0) for result in found]))
            merge_metrics(path, {key: known[key]})
            print(f"sweep {key}: {known[key]:.2f} dB", file=sys.stderr, flush=True)
        rates[rate] = known[key]
    return rates


def best_rate(name: str, rates: dict[float, float]) -> tuple[float, dict[str, float]]:
    """The rate with the largest PSNR, and what the record says about the sweep."""
    best = max(rates, key=rates.get)
    return best, {f"sweep.{name}.{rate:g}": score for rate, score in rates.items()} | {f"{name}.learning_rate": best}
