"""The contract of a source of signals, and what all of them share."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from wsrl.errors import UserError
from wsrl.progress import ShowProgress, silent
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal
from wsrl.signals.source_options import SourceOptions


class Source(ABC):
    """Signals in a stable order under stable ids; each is read when it is asked for.

    Attributes:
        name: Name of the source.
        ids: Ids in the stable order, those of signals that will turn out bad included.
        label_names: Sorted class names of the whole source, whatever is selected; empty if it has none.
        description: Plain JSON for the manifest; equal descriptions mean equal signals.
        options: The options it was opened with.
        form: What all its signals have in common.
        notes: What the user should know of how the source was read, a line each; not part of the description.
        passed_over: Number of files of a folder that are no signals, by ending; not part of the description, since a
            note added to the folder changes no signal.
    """

    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        *,
        name: str,
        ids: Sequence[str],
        labels: Sequence[str | None],
        splits: Sequence[str | None],
        form: SignalForm,
        options: SourceOptions,
        details: Mapping[str, object],
    ):
        """Select what the options ask for from the full listing.

        Args:
            name: Name of the source.
            ids: Ids of the full listing, in order.
            labels: Class name of each, or None.
            splits: Split of each, or None.
            form: What all signals have in common.
            options: Options given by the user.
            details: Further plain JSON for the description.
        """
        self.name = name
        self.options = options
        self.form = form
        self.positions = select(splits, options, name)
        self.ids = [ids[position] for position in self.positions]
        self.label_names = tuple(sorted({label for label in labels if label is not None}))
        self._labels = [labels[position] for position in self.positions]
        self._splits = [splits[position] for position in self.positions]
        self.description = {
            "name": name,
            "num_signals": len(self.ids),
            "grid": None if form.grid is None else list(form.grid),
            "channels": form.out_features,
            "options": options.to_dict(),
            **details,
        }
        if form.has_inside:
            self.description |= {"quantity": form.quantity, "coordinates": form.in_features}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the numbers that the data's authors gave them; sorted where they gave none."""
        return self.label_names

    def labels(self) -> list[str | None]:
        """Class name of each signal, without reading it."""
        return list(self._labels)

    def splits(self) -> list[str | None]:
        """Split of each signal, without reading it."""
        return list(self._splits)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Signal:
        """Read the signal at an index of the stable order; negative ones count from the end.

        Raises:
            SignalError: This signal cannot be used; the message is the reason.
        """
        index = range(len(self.ids))[index]
        names = {"id": self.ids[index], "label": self._labels[index], "split": self._splits[index]}
        return self.read(int(self.positions[index]), **names)

    def __iter__(self) -> Iterator[Signal]:
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def read(self, position: int, *, id: str, label: str | None, split: str | None) -> Signal:
        """The signal at a place of the full listing."""

    def prepare(self, indices: Sequence[int], processes: int, advance: Callable[[int], None]) -> None:
        """Compute and keep what reading these signals needs, where that is worth doing beforehand."""
        advance(len(indices))


def select(splits: Sequence[str | None], options: SourceOptions, name: str) -> np.ndarray:
    """Places that the options ``split`` and ``limit`` keep, in order.

    Args:
        splits: Split of each signal of the full listing.
        options: Options given by the user.
        name: Name of the source, for the message.

    Raises:
        UserError: A split is asked for that the source does not have.
    """
    present = sorted({split for split in splits if split is not None})
    limits = options.limit if isinstance(options.limit, Mapping) else None
    asked = ([options.split] if options.split is not None else []) + list(limits or ())
    for split in asked:
        if split not in present:
            allowed = ", ".join(present) or "no split, since this source has none"
            raise UserError(
                f"the source {name} has no split {split!r}", allowed=allowed, do="change or drop the option"
            )
    taken: Counter = Counter()
    keep = []
    for position, split in enumerate(splits):
        quota = options.limit if limits is None else limits.get(split, 0)
        if (options.split in (None, split)) and (quota is None or taken[split] < quota):
            taken[split] += 1
            keep.append(position)
    return np.asarray(keep, dtype=np.int64)


def prepare_signals(source: Source, indices: Sequence[int], progress: ShowProgress = silent) -> None:
    """Let a source compute, with all cores, what reading these signals needs; pictures need nothing."""
    if not source.form.is_shape or not indices:
        return
    with progress("signals prepared", len(indices)) as shown:
        source.prepare(indices, os.cpu_count() or 1, shown.advance)


def training_indices(source: Source) -> list[int]:
    """Indices of the split ``train``, or all where the source has no such split."""
    splits = source.splits()
    return [i for i, split in enumerate(splits) if split == "train"] or list(range(len(splits)))
