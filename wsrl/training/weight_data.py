"""The weights of a store as Lightning sees them: shuffled batches, read by worker processes or kept in memory."""

from collections.abc import Callable, Iterator
from functools import cached_property

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.gauge import GAUGES, RAW, check_gauge
from wsrl.fields.layout import Layout
from wsrl.options import SHARE, at_least, check_values, one_of
from wsrl.store import Batch, WeightStore
from wsrl.store.splits import PARTS, PartReader, Share, part_codes

_EPOCH_STRIDE = 1_000_003


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
        # One order for all processes, of which each takes its run.
        if share.seed is not None:
            order = torch.randperm(total, generator=torch.Generator().manual_seed(share.seed))
        first, last = share.limits(total)
        for rows in order[first:last].split(size):
            metrics = {name: column[rows] for name, column in self.metrics.items()}
            weights = self.layout.unflatten(self.flat[rows])
            yield Batch(weights, self.labels[rows], self.encoded_ids[rows.numpy()], metrics)


class PartDataset(IterableDataset):
    """Whole batches of one part; each worker reads its own share from files that it opens itself.

    Args:
        store: The store; only its path and manifest travel to a worker.
        mask: Boolean array over the rows of the store.
        batch_size: Fields in a batch.
        seed: Seed of the order, which changes with ``epoch``; None for the order of the store.
        num_workers: Worker processes of the loader, zero for none.
        metrics: Names of the metrics that batches keep.
        cached: The part where it is in memory; then nothing is read.
        rank: Number of this process in distributed training.
        world_size: Processes there are.
    """

    def __init__(
        self,
        store: WeightStore,
        mask: np.ndarray,
        batch_size: int,
        *,
        seed: int | None,
        num_workers: int,
        metrics: tuple[str, ...] = (),
        cached: CachedPart | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.store, self.mask, self.batch_size, self.seed = store, mask, batch_size, seed
        self.readers, self.rank, self.world_size = max(num_workers, 1), rank, world_size
        self.metrics, self.cached = metrics, cached
        self.epoch = 0

    def _share(self, worker: int) -> Share:
        seed = None if self.seed is None else self.seed * _EPOCH_STRIDE + self.epoch
        number, count = self.rank * self.readers + worker, self.world_size * self.readers
        return Share(number=number, count=count, equal=self.world_size > 1, seed=seed)

    def __iter__(self) -> Iterator[Batch]:
        if self.cached is not None:
            yield from self.cached.batches(self.batch_size, self._share(0))
            return
        worker = get_worker_info()
        reader = PartReader(self.store, self.mask, self._share(worker.id if worker else 0))
        yield from reader.batches(self.batch_size, metrics=self.metrics)

    def __len__(self) -> int:
        """Batches of this process in one epoch, exactly."""
        limits = [self._share(worker).limits(int(self.mask.sum())) for worker in range(self.readers)]
        return sum(-(-(last - first) // self.batch_size) for first, last in limits)


class EpochLoader(DataLoader):
    """A loader that tells its dataset the epoch before the workers start, so that a resumed run sees the same order.

    Args:
        dataset: Dataset that yields whole batches.
        epoch: Called at the start of each pass; gives the number of the epoch.
        num_workers: Worker processes.
    """

    def __init__(self, dataset: PartDataset, epoch: Callable[[], int], num_workers: int):
        super().__init__(dataset, batch_size=None, num_workers=num_workers)
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the iterator before it restores the epoch, and asks for the first batch after.
        self.dataset.epoch = self.epoch()
        yield from super().__iter__()


class WeightDataModule(L.LightningDataModule):
    """Train, validation and test batches of the fields in a store.

    A train part that fits into ``cache_mb`` is read once and kept. Beyond that memory does not grow with the weights in
    the store: one block of rows at a time is read where nothing is shuffled, sixteen where it is, and a byte per field
    says which part it belongs to.

    Args:
        store: Folder of the store.
        batch_size: Fields in a batch.
        num_workers: Worker processes that read; zero reads in the main process.
        val_fraction: Share of the train split that is held out for validation, chosen by a hash of the id.
        test_fraction: Share held out for the test, where the fields have no split.
        seed: Seed of the order of the training batches.
        cache_mb: Largest train part that is kept in memory, in MB of 2^20 bytes; zero keeps none.
        gauge: ``raw``, or ``canonical``: the model reads weights in the form of :mod:`wsrl.fields.gauge`, and keeps
            that in mind. Batches hold the weights of the store.

    Raises:
        UserError: A number is out of range, or the gauge is unknown.
    """

    def __init__(
        self,
        store: str,
        batch_size: int = 128,
        num_workers: int = 1,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
        cache_mb: int = 1024,
        gauge: str = RAW,
    ):
        super().__init__()
        self.save_hyperparameters()
        self._metrics: tuple[str, ...] = ()
        rules = {"batch_size": at_least(1), "num_workers": at_least(0), "cache_mb": at_least(0)}
        check_values(locals(), "data.", **rules, val_fraction=SHARE, test_fraction=SHARE, gauge=one_of(*GAUGES))

    @cached_property
    def store(self) -> WeightStore:
        """The store, opened when it is first needed."""
        return WeightStore.open(self.hparams.store)

    @property
    def layout(self) -> Layout:
        """Layout of the fields."""
        return self.store.layout

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.store.label_names

    @cached_property
    def _codes(self) -> np.ndarray:
        return part_codes(self.store, self.hparams.val_fraction, self.hparams.test_fraction)

    def rows(self, part: str) -> np.ndarray:
        """Boolean array over the rows of the store, true for ``train``, ``val`` or ``test``."""
        return self._codes == PARTS.index(part)

    def num_fields(self, part: str) -> int:
        """Number of fields in ``train``, ``val`` or ``test``."""
        return int(self.rows(part).sum())

    def batches(self, part: str) -> Iterator[Batch]:
        """One pass over a part in the order of the store, read in this process."""
        if part == "train" and self._is_cached:
            return self._cached_train.batches(self.hparams.batch_size, Share())
        return PartReader(self.store, self.rows(part), Share()).batches(self.hparams.batch_size, metrics=self._metrics)

    def keep_metric(self, name: str) -> None:
        """Keep a stored metric in all batches; to be called before the first of them.

        Raises:
            UserError: The store has no such metric.
        """
        self.store.metrics(name)
        if self._metrics != (name,):
            self.__dict__.pop("_cached_train", None)  # read without it
        self._metrics = (name,)

    @property
    def _is_cached(self) -> bool:
        size = 4 * self.layout.num_weights * self.num_fields("train")
        return size <= self.hparams.cache_mb * 2**20

    @cached_property
    def _cached_train(self) -> CachedPart:
        return CachedPart(PartReader(self.store, self.rows("train"), Share()), self.num_fields("train"), self._metrics)

    @cached_property
    def _statistics(self) -> WeightStatistics:
        check_gauge(self.hparams.gauge, self.layout, "data.gauge")
        batches = (batch.weights for batch in self.batches("train"))
        return WeightStatistics.from_batches(self.layout, batches, self.hparams.gauge)

    def statistics(self) -> WeightStatistics:
        """Mean and standard deviation of each trainable weight over the train part, in one pass; measured once.

        Raises:
            UserError: The fields have no canonical gauge.
        """
        return self._statistics

    def train_dataloader(self) -> EpochLoader:
        """Shuffled batches of the train part, in another order each epoch."""
        if not self.num_fields("train"):
            raise UserError(
                f"the store {self.hparams.store} has no fields to train on",
                allowed="at least one field in the split train, or without a split",
                do="look at wsrl info, and build a store with training signals",
            )
        return self._loader("train", self.hparams.seed)

    def val_dataloader(self) -> EpochLoader | list:
        """Batches of the held-out part; none where it is empty."""
        return self._loader("val", None) if self.num_fields("val") else []

    def test_dataloader(self) -> EpochLoader | list:
        """Batches of the test part; none where it is empty."""
        return self._loader("test", None) if self.num_fields("test") else []

    def _loader(self, part: str, seed: int | None) -> EpochLoader:
        trainer = self.trainer
        is_cached = part == "train" and self._is_cached
        workers = 0 if is_cached else self.hparams.num_workers
        dataset = PartDataset(
            self.store,
            self.rows(part),
            self.hparams.batch_size,
            seed=seed,
            num_workers=workers,
            metrics=self._metrics,
            cached=self._cached_train if is_cached else None,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return EpochLoader(dataset, lambda: trainer.current_epoch if trainer else dataset.epoch, workers)
