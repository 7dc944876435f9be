"""What all sources of shapes share: prepared shapes come from the cache, or are prepared and kept.

A shape that cannot be used is a bad signal with its reasons; nothing here ends because of one.
"""

import multiprocessing
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trimesh

from wsrl.durable import text_number
from wsrl.errors import SignalError, one_line
from wsrl.signals.shapes.preparation import prepare_in_processes
from wsrl.signals.shapes.shape import (
    Content,
    PreparedShape,
    ShapeOptions,
    ShapeSignal,
    prepare_shape,
    rejected,
    to_signal,
)
from wsrl.signals.shapes.shape_cache import cache_key, cache_path, load_prepared, save_prepared
from wsrl.signals.shapes.solid import MeshSolid, Solid
from wsrl.signals.source import Source

# What NumPy, libigl and trimesh raise on a mesh that nobody thought of; it must not end the work on all others.
UNFORESEEN = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class ShapeRecord:
    """What is known of one shape.

    Attributes:
        id: Its id.
        verdict: ``used``, ``repaired`` or ``rejected``.
        reasons: What was repaired, or why it was rejected.
        quality: Plain numbers about it, ``seconds`` of its preparation among them.
    """

    id: str
    verdict: str
    reasons: tuple[str, ...]
    quality: dict[str, float]


class ShapeSource(Source):
    """Shapes in a stable order, each prepared when it is first asked for or beforehand by ``prepare``.

    Attributes:
        options: The options it was opened with.
    """

    options: ShapeOptions

    def __init__(self, *, options: ShapeOptions, **listing):
        """As :class:`Source`; the form is that of the options."""
        super().__init__(form=options.form, options=options, **listing)
        self._keys: dict[int, str] = {}  # of shapes read before, so that their files are not read and hashed again

    @abstractmethod
    def content(self, position: int) -> Content:
        """The shape at a position of the full listing, before any selection.

        Raises:
            SignalError: Its bytes cannot be had; nothing is kept of that, so it is tried again next time.
        """

    def read(self, position: int, *, id: str, label: str | None, split: str | None) -> ShapeSignal:
        """See ``Source``.

        Raises:
            SignalError: The shape is rejected; the message has the reasons.
        """
        return to_signal(self.prepared(position, id), self.options, id=id, label=label, split=split)

    def prepared(self, position: int, id: str) -> PreparedShape:
        """The prepared shape, from the cache where it has it.

        Raises:
            SignalError: Its bytes cannot be had.
        """
        began = time.perf_counter()
        known = self._keys.get(position)
        kept = load_prepared(cache_path(self.options.cache, known)) if known else None
        if kept is not None:
            return kept
        content = self.content(position)
        path = self.cache_file(content, id)
        self._keys[position] = path.stem
        kept = load_prepared(path)
        if kept is not None:
            return kept
        fresh = prepare_content(content, self.options, self.seed_of(id))
        fresh = replace(fresh, quality=fresh.quality | {"seconds": time.perf_counter() - began})
        save_prepared(path, fresh)
        return fresh

    def cache_file(self, content: Content, id: str) -> Path:
        """Where the prepared shape is kept."""
        return cache_path(self.options.cache, cache_key(content.data, self.options.sampling(), self.seed_of(id)))

    def seed_of(self, id: str) -> int:
        """Seed of the points of one shape: its own, whatever else is in the source."""
        return text_number(f"{self.options.seed}/{id}")

    def is_cached(self, index: int) -> bool:
        """Whether a shape, or its rejection, is in the cache; one that cannot be read counts as if it were."""
        try:
            content = self.content(int(self.positions[index]))
        except SignalError:
            return True
        return self.cache_file(content, self.ids[index]).is_file()

    def record(self, index: int) -> ShapeRecord:
        """What is known of a shape; prepares it if that has not been done."""
        id = self.ids[index]
        try:
            shape = self.prepared(int(self.positions[index]), id)
        except SignalError as error:
            return ShapeRecord(id=id, verdict="rejected", reasons=(str(error),), quality={})
        return ShapeRecord(id=id, verdict=shape.verdict, reasons=shape.reasons, quality=shape.quality)

    def mesh(self, index: int) -> trimesh.Trimesh:
        """The surface of a shape in normalised coordinates, as it is taken for the boundary of a solid; it is not kept.

        Raises:
            SignalError: The shape cannot be used.
        """
        made = self.content(int(self.positions[index])).make()
        return (made if isinstance(made, Solid) else MeshSolid(made)).mesh

    def reject(self, index: int, reason: str) -> None:
        """Keep in the cache that a shape cannot be prepared."""
        path = self.cache_file(self.content(int(self.positions[index])), self.ids[index])
        save_prepared(path, rejected(f"{reason}; to try it again remove {path}"))

    def prepare(self, indices: Sequence[int], processes: int, advance: Callable[[int], None]) -> None:
        """Prepare shapes that are not in the cache, in processes of one thread each.

        Only the shapes in work are in memory. A process that dies takes no other shape with it; the shape that kills
        its process twice is rejected.
        """
        missing = [index for index in indices if not self.is_cached(index)]
        if len(missing) < len(indices):
            advance(len(indices) - len(missing))
        # The processes of a build are daemons, which may have no children.
        if min(processes, len(missing)) > 1 and not multiprocessing.current_process().daemon:
            for index, reason in prepare_in_processes(self, missing, processes, advance):
                self.reject(index, reason)
            return
        for index in missing:
            self.record(index)
            advance(1)


def prepare_content(content: Content, options: ShapeOptions, seed: int) -> PreparedShape:
    """Prepare one shape; whatever is wrong with it makes it rejected."""
    try:
        return prepare_shape(content.make(), options, seed)
    except SignalError as error:
        return rejected(str(error).rstrip("."))
    except UNFORESEEN as error:
        return rejected(f"cannot be prepared ({type(error).__name__}: {one_line(error)})")
