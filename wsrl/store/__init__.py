"""Data sets of field weights in HDF5 shards: writer, reader, verification, data card."""

from wsrl.store.batches import Batch
from wsrl.store.field import Field
from wsrl.store.reader import WeightStore
from wsrl.store.rows import FitResult

__all__ = ["Batch", "Field", "FitResult", "WeightStore"]
