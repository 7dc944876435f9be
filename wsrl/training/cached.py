"""A part of a store in memory, for training sets that fit.

Letters: N fields of the part, W weights of a field.
"""

from collections.abc import Iterator

import numpy as np
import torch

from wsrl.store import Batch
from wsrl.store.splits import PartReader, Share


class CachedPart:
    """All fields of a part, read once and checked, with one row of numbers each.

    Args:
        reader: Reads the whole part, in the order of the store.
        num_fields: Fields that it has.
        metrics: Names of the metrics that batches keep.
    """

    READ = 512

    def __init__(self, reader: PartReader, num_fields: int, metrics: tuple[str, ...] = ()):
        self.layout = reader.store.layout
        self.flat = torch.empty(num_fields, self.layout.num_weights)
        self.labels = torch.empty(num_fields, dtype=torch.long)
        self.metrics = {name: torch.empty(num_fields) for name in metrics}
        names, start = [], 0
        for batch in reader.batches(self.READ, metrics=metrics):
            rows = slice(start, start + len(batch))
            self.flat[rows] = self.layout.flatten(batch.weights)
            self.labels[rows] = batch.labels
            for name, column in self.metrics.items():
                column[rows] = batch.metrics[name]
            names.append(batch.encoded_ids)
            start = rows.stop
        self.encoded_ids = np.concatenate(names) if names else np.zeros(0, dtype=object)

    def batches(self, size: int, share: Share) -> Iterator[Batch]:
        """Go through a share once; with a seed in an order that mixes all fields, the same for every process."""
        total = len(self.labels)
        order = torch.arange(total)
        if share.seed is not None:
            order = torch.randperm(total, generator=torch.Generator().manual_seed(share.seed))
        first, last = share.limits(total)
        for rows in order[first:last].split(size):
            metrics = {name: column[rows] for name, column in self.metrics.items()}
            weights = self.layout.unflatten(self.flat[rows])
            yield Batch(weights, self.labels[rows], self.encoded_ids[rows.numpy()], metrics)
