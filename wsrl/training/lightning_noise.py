"""Silence for Lightning's hints that do not apply to weight stores, each by name; what it sets globally is put back."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch  # noqa: F401  sets the levels of its loggers when it is imported
import torch

WARNINGS = (
    # One worker reads a store faster than a small network trains on it.
    ".*does not have many workers which may be a bottleneck.*",
    # The number of batches is exact, with several workers too.
    ".*Your `IterableDataset` has `__len__` defined.*",
    # Without a validation part (val_fraction 0) its loader is an empty list, as asked for.
    ".*Total length of `list` across ranks is zero.*",
    # Metrics are logged once an epoch.
    ".*The number of training batches .* is smaller than the logging interval.*",
    # A run is continued in its own folder.
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    # Lightning's own use of torch.
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    # Lightning's own use of jsonargparse.
    "(?s).*(add_instantiator|instantiate_classes|skip_none).* was deprecated in v4.*",
    "(?s).*only one JsonargparseDeprecationWarning per type is shown.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Within the block, ignore the warnings above and Lightning's information lines; other warnings are shown.

    Whether torch allows algorithms that are not deterministic, which a trainer sets for the process, is afterwards
    as it was.
    """
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
