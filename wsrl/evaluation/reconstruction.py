"""How well the fields of a store reproduce their signals, by recorded metrics and by evaluating fields anew.

Letters: B fields, P points, C channels.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wsrl.evaluation.features import BATCH, signals_of_rows, weights_of_rows
from wsrl.signals.fidelity import in_quantity, psnr
from wsrl.signals.source import Source
from wsrl.store import WeightStore


def recorded(store: WeightStore) -> dict[str, float]:
    """Summary of the PSNR (dB), SSIM and sign agreement that fitting recorded, over all fields and over each split.

    Args:
        store: The store.

    Returns:
        Dotted keys such as ``psnr_mean`` and ``test.psnr_mean``, and the number of fields and of failures.
    """
    splits = store.splits()
    metrics: dict[str, float] = {"num_fields": len(store), "num_failures": len(store.failures)}
    for name in ("psnr", "ssim", "sign_agreement"):
        if name in store.metric_names:
            values = store.metrics(name)
            metrics |= summarise(name, values)
            for split in sorted(set(splits.tolist()) - {""}):
                metrics |= summarise(f"{split}.{name}", values[splits == split])
    return metrics


def recomputed(store: WeightStore, source: Source, rows: Sequence[int]) -> dict[str, float]:
    """PSNR of some fields, evaluated at the points of their signals now, beside what fitting recorded.

    Args:
        store: The store.
        source: The source that it was built from.
        rows: Rows to evaluate.

    Returns:
        ``recomputed.num``, ``recomputed.psnr_mean`` (dB), and ``recomputed.psnr_difference_max``, the largest
        difference from the recorded PSNR.
    """
    stored = store.metrics("psnr")
    values = []
    for row, signal in zip(rows, signals_of_rows(store, source, rows)):
        with torch.no_grad():
            field = store.field(int(row))(signal.coords)
        readable = in_quantity(field[None], signal.form)
        values.append(psnr(readable, signal.values[None], signal.form.value_range).item())
    return {
        "recomputed.num": len(values),
        "recomputed.psnr_mean": float(np.mean(values)),
        "recomputed.psnr_difference_max": float(np.abs(np.array(values) - stored[np.asarray(rows)]).max()),
    }


Weights = dict[str, Tensor]


def reconstructed(
    store: WeightStore, source: Source, through: Callable[[Weights], Weights], rows: Sequence[int]
) -> dict[str, float]:
    """PSNR of fields that went through an autoencoder, at the points of their signals, beside the stored fields'.

    Args:
        store: The store.
        source: The source that it was built from.
        through: The autoencoder: weights ``(B, *shape)`` to weights of the same shapes.
        rows: Rows to reconstruct.

    Returns:
        In dB, each with standard deviation and tail: ``autoencoder_psnr_mean`` of the reconstructed fields against the
        real signals, ``autoencoder_fitted_psnr_mean`` of the same fields as they are stored, and
        ``autoencoder_agreement_psnr_mean`` of the reconstructed fields against the stored ones; and their number.
    """
    values_by_name: dict[str, list[float]] = {"psnr": [], "fitted_psnr": [], "agreement_psnr": []}
    signals = signals_of_rows(store, source, rows)
    for part, weights in batches_of_rows(store, rows):
        again = through(weights)
        for i, _ in enumerate(part):
            signal = next(signals)
            with torch.no_grad():
                pair = torch.cat(
                    [
                        store.representation.evaluate({k: v[i : i + 1] for k, v in field.items()}, signal.coords)
                        for field in (again, weights)
                    ]
                )  # (2, P, C)
            # Both against the signal, and against each other.
            again_values, stored_values = in_quantity(pair, signal.form)[:, None]
            for name, values, target in (
                ("psnr", again_values, signal.values[None]),
                ("fitted_psnr", stored_values, signal.values[None]),
                ("agreement_psnr", again_values, stored_values),
            ):
                values_by_name[name].append(psnr(values, target, signal.form.value_range).item())
    metrics: dict[str, float] = {"autoencoder_num": len(values_by_name["psnr"])}
    for name, values in values_by_name.items():
        metrics |= summarise(f"autoencoder_{name}", np.array(values))
    return metrics


def batches_of_rows(store: WeightStore, rows: Sequence[int]) -> Iterator[tuple[Sequence[int], Weights]]:
    """Some rows of a store, at most ``BATCH`` at a time, and their weights ``(B, *shape)``."""
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        yield part, weights_of_rows(store, part)


def summarise(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation and tail of one metric over fields, under dotted keys.

    Args:
        name: Prefix of the keys, such as ``psnr``.
        values: One number per field; a field without the metric has NaN and is left out.

    Returns:
        ``<name>_mean``, ``_std``, ``_min``, ``_p05`` (5th percentile) and ``_median``; nothing where no field has it.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return {}
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_std": float(values.std()),
        f"{name}_min": float(values.min()),
        f"{name}_p05": float(np.percentile(values, 5)),
        f"{name}_median": float(np.median(values)),
    }
