"""The contract of a source of pictures, and what all of them share.

Letters: H height, W width, C channels.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from wsrl.errors import UserError
from wsrl.signals.image import values_to_signal
from wsrl.signals.options import SourceOptions
from wsrl.signals.signal import Signal


class Source(ABC):
    """Signals in a stable order under stable ids; each is read when it is asked for.

    Attributes:
        name: Name of the source.
        ids: Ids in the stable order, those of signals that will turn out bad included.
        label_names: Sorted class names of the whole source, whatever is selected; empty if it has none.
        description: Plain JSON for the manifest; equal descriptions mean equal signals.
        options: The options it was opened with.
    """

    def __init__(
        self,
        *,
        name: str,
        ids: Sequence[str],
        labels: Sequence[str | None],
        splits: Sequence[str | None],
        signal_shape: tuple[tuple[int, int], int],
        options: SourceOptions,
        details: Mapping[str, object],
    ):
        """Select what the options ask for from the full listing.

        Args:
            name: Name of the source.
            ids: Ids of the full listing, in order.
            labels: Class name of each, or None.
            splits: Split of each, or None.
            signal_shape: Grid and number of channels of every signal.
            options: Options given by the user.
            details: Further plain JSON for the description.
        """
        self.name = name
        self.options = options
        self.positions = select(splits, options, name)
        self.ids = [ids[position] for position in self.positions]
        self.label_names = tuple(sorted({label for label in labels if label is not None}))
        self._labels = [labels[position] for position in self.positions]
        self._splits = [splits[position] for position in self.positions]
        self._signal_shape = signal_shape
        grid, channels = signal_shape
        self.description = {
            "name": name,
            "num_signals": len(self.ids),
            "grid": list(grid),
            "channels": channels,
            "options": options.to_dict(),
            **details,
        }

    @property
    def signal_shape(self) -> tuple[tuple[int, int], int]:
        """Grid (height, width) and number of channels of all signals."""
        return self._signal_shape

    def labels(self) -> list[str | None]:
        """Class name of each signal, without reading it."""
        return list(self._labels)

    def splits(self) -> list[str | None]:
        """Split of each signal, without reading it."""
        return list(self._splits)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Signal:
        """Read one signal.

        Args:
            index: Place in the stable order; negative counts from the end.

        Raises:
            SignalError: This signal cannot be used; the message is the reason.
        """
        index = range(len(self.ids))[index]
        values = self.read_values(int(self.positions[index]))  # (H, W, C)
        return values_to_signal(values, id=self.ids[index], label=self._labels[index], split=self._splits[index])

    def __iter__(self) -> Iterator[Signal]:
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` in [0, 1], float32, of the signal at a place of the full listing.

        Args:
            position: Place in the full listing, before any selection.
        """


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
