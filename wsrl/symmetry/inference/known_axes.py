"""What is known about the axes of the tensors that a trace has met."""

import torch
from torch import Tensor

from wsrl.symmetry.inference.reshape import settle
from wsrl.symmetry.inference.solving import unify
from wsrl.symmetry.inference.terms import Axis, fix, fixed_axes, leaves, new_axis


class WrittenConstantError(Exception):
    """A constant turned out to be written to: it must be one tensor, not a fresh one wherever it is used.

    Attributes:
        index: The number of the constant in the trace.
    """

    def __init__(self, index: int | None):
        super().__init__(f"constant {index} is written to")
        self.index = index


def memory_of(tensor: Tensor) -> int | None:
    """The memory that a tensor views, as a number; None for sparse tensors and others that have none of their own."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided and not tensor.is_nested else None


def layout_of(tensor: Tensor) -> tuple:
    """Shape, strides and offset of a tensor; of one without memory of its own, its identity."""
    if memory_of(tensor) is None:
        return tuple(tensor.shape), id(tensor), 0
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _factors(values: Tensor, dim: int) -> list[tuple[int, bool]]:
    """Lengths whose product is an axis of a constant, row-major, each with whether the values change along it.

    Repeated entries and repeated blocks, such as one mask for all heads of an item, are told from what changes.
    """
    size = values.shape[dim]
    flat = values.movedim(dim, 0).reshape(size, -1)
    if size == 1 or torch.equal(flat, flat[:1].expand_as(flat)):
        return [(size, False)]
    lengths = [n for n in range(size // 2, 0, -1) if size % n == 0]
    # The most entries in a row that are alike, then the most copies of one block; one of either always fits.
    rows = (flat.unflatten(0, (-1, entries)) for entries in lengths)
    blocks = next(block for block in rows if torch.equal(block, block[:, :1].expand_as(block)))
    changing = blocks[:, 0]
    parts = (changing.unflatten(0, (copies, -1)) for copies in lengths if len(changing) % copies == 0)
    tiles = next(tile for tile in parts if torch.equal(tile, tile[:1].expand_as(tile)))
    return [(len(tiles), False), (tiles.shape[1], True), (blocks.shape[1], False)]


class Table:
    """Axes of tensors, by identity; keeps the tensors alive so that no identity returns.

    A tensor that is not in the table is a constant. Along axes where its values are equal any permutation leaves it as
    it is, so each use gets fresh free axes there; all other axes are fixed.

    Args:
        written: Numbers of the constants that the function writes to; each has one set of axes.
    """

    def __init__(self, written: frozenset[int] = frozenset()):
        self.written = written
        self.weights: dict[str, list[Axis]] = {}
        self.used: list[str] = []
        self._names: dict[int, list[str]] = {}
        self._axes: dict[int, list[Axis]] = {}
        self._alive: dict[int, Tensor] = {}
        self._geometry: dict[int, tuple] = {}
        self._memory: dict[int, list[Tensor]] = {}
        self._constant_indices: dict[int, int] = {}
        self._blank: set[int] = set()
        self._on_use: dict[int, Axis] = {}
        self._index: Tensor | None = None

    def add_weight(self, name: str, tensor: Tensor, is_fixed: bool, num_fixed: int = 0) -> None:
        """Enter a weight; one that is known under another name shares its axes.

        Args:
            name: Its name.
            tensor: The tensor.
            is_fixed: Whether none of its axes may move.
            num_fixed: Number of leading axes that count instances, not entries; those stay fixed.
        """
        if id(tensor) not in self._axes:
            axes: list[Axis] = []
            for dim, size in enumerate(tensor.shape):  # the later axes may at first depend on all before them
                held = is_fixed or dim < num_fixed
                parents = [atom for axis in axes for atom in axis if atom.free]
                axes.append(new_axis(size, () if held else parents, fixed=held))
            self.record(tensor, axes)
        elif is_fixed:
            for axis in self._axes[id(tensor)]:
                fix(axis)
        self.weights[name] = self._axes[id(tensor)]
        self._names.setdefault(id(tensor), []).append(name)

    def known(self, tensor: Tensor) -> bool:
        """Whether a tensor is more than a constant."""
        return self.key(tensor) is not None

    def record(self, tensor: Tensor, axes: list[Axis]) -> None:
        """Enter what was found about a tensor."""
        self._axes[id(tensor)] = settle(axes)
        self._alive[id(tensor)] = tensor
        self._geometry[id(tensor)] = layout_of(tensor)
        if tensor.numel() and memory_of(tensor) is not None:
            self._memory.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)

    def get(self, tensor: Tensor) -> list[Axis]:
        """Axes of a tensor as they are known by now."""
        key = self.key(tensor)
        if key is None:
            return self._constant_axes(tensor)
        for name in self._names.get(key, ()):
            if name not in self.used:
                self.used.append(name)
        if key in self._on_use:
            fix(self._on_use.pop(key))
        self._axes[key] = settle(self._axes[key])
        return self._axes[key]

    def key(self, tensor: Tensor) -> int | None:
        """What the tensor is known under; None for a constant."""
        if id(tensor) in self._axes:
            return id(tensor)
        twin = self._same_memory(tensor)
        return None if twin is None else id(twin)

    def key_of_weight(self, name: str) -> int:
        """What the tensor of a weight is known under."""
        return next(key for key, names in self._names.items() if name in names)

    def peek(self, tensor: Tensor) -> list[Axis]:
        """Axes of a tensor without counting as a use of it; none for a constant."""
        key = self.key(tensor)
        return [] if key is None else self._axes[key]

    def _same_memory(self, tensor: Tensor) -> Tensor | None:
        """The known tensor that another is a view of which was made outside the trace (``.data``, numpy)."""
        if not tensor.numel() or memory_of(tensor) is None:
            return None
        twins = self._memory.get(tensor.untyped_storage().data_ptr(), ())
        for twin in twins:
            if layout_of(twin) == layout_of(tensor):
                return twin
        if twins:  # some other view: nothing of the memory may move
            for twin in twins:
                for axis in self._axes[id(twin)]:
                    fix(axis)
            self.record(tensor, fixed_axes(tensor.shape))
            return tensor
        return None

    def geometry(self, tensor: Tensor) -> tuple:
        """Shape, strides and offset that a tensor had when it was entered."""
        return self._geometry.get(id(tensor), layout_of(tensor))

    def is_only_index(self, index: Tensor) -> bool:
        """Whether stacked networks were told apart by no other tensor of places so far; later ones are refused."""
        self._index = index if self._index is None else self._index
        return self._index is index

    def fix_on_use(self, tensor: Tensor, axis: Axis) -> None:
        """Let an axis be fixed if a tensor, such as the places of maxima along it, is ever used."""
        self._on_use[id(tensor)] = axis

    def number(self, tensor: Tensor, index: int) -> None:
        """Note that a tensor without known axes was made as the constant of a number."""
        if memory_of(tensor) is None:
            return
        self._alive[id(tensor)] = tensor
        self._constant_indices.setdefault(memory_of(tensor), index)
        if index in self.written:
            is_even = id(tensor) in self._blank or (tensor.numel() and bool((tensor == tensor.reshape(-1)[0]).all()))
            self.record(tensor, [new_axis(size) for size in tensor.shape] if is_even else self._constant_axes(tensor))

    def blank(self, tensor: Tensor) -> None:
        """Note that the values of a tensor mean nothing yet."""
        self._alive[id(tensor)] = tensor
        self._blank.add(id(tensor))

    def refuse_write(self, tensor: Tensor) -> None:
        """Start over with a constant that is written to as one tensor."""
        index = self._constant_indices.get(memory_of(tensor))
        if index is None or index in self.written:  # made outside, or a view that we cannot follow
            self.record(tensor, fixed_axes(tensor.shape))
            return
        raise WrittenConstantError(index)

    def _constant_axes(self, tensor: Tensor) -> list[Axis]:
        self._alive[id(tensor)] = tensor
        if id(tensor) in self._blank or tensor.numel() == 0:
            return [new_axis(size) for size in tensor.shape]
        if memory_of(tensor) is None:
            return fixed_axes(tensor.shape)
        values, axes = tensor.detach(), []
        for dim in range(tensor.ndim):
            axis: Axis = ()
            # what varies is fixed; the rest is free for each element before it
            for length, varies in _factors(values, dim):
                before = [atom for other in (*axes, axis) for atom in other]
                axis = (*axis, *new_axis(length, () if varies else before, fixed=varies))
            axes.append(axis)
        return axes

    def moves(self, tensors: list[Tensor]) -> bool:
        """Whether some axis of some tensor may move with the weights."""
        of_weights = {atom for axes in self.weights.values() for axis in axes for atom in leaves(axis)}
        return any(atom in of_weights for tensor in tensors for axis in self.get(tensor) for atom in leaves(axis))

    def hold(self, tensor: Tensor) -> None:
        """Fix all axes of a tensor."""
        if self.known(tensor):
            for axis in self.get(tensor):
                fix(axis)

    def enter_input(self, tensor: Tensor) -> None:
        """Enter an input of the network, whose axes are fixed."""
        if id(tensor) in self._axes:
            self.hold(tensor)
        else:
            self.record(tensor, fixed_axes(tensor.shape))

    def tie(self, tensor: Tensor, axes: list[Axis]) -> None:
        """Let the axes of a tensor move like others, where neither is a single element spread out."""
        for own, other in zip(self.get(tensor), axes):
            if own and other:
                unify(own, other)
