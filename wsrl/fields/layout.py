"""The layout of a field's weights: names, shapes, frozen entries, symmetries, and how they become vectors and tokens.

Letters: N fields, W weights of a field in one vector.
"""

import base64
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor of a field.

    Attributes:
        name: Key in the weight dictionary, such as ``layers.0.down``.
        shape: Shape for one field, without the batch axis.
        axes: For each axis the name of the permutation that acts on it (neurons of a standalone field, rank
            components of an adapter), or None where the axis is fixed.
        group: The layer that the tensor belongs to; tensors of one group are cut into tokens together.
        token_axis: The axis along which the group is cut: rank components, or output neurons.
        frozen: Base64 of the packed bits of the frozen entries in row-major order; None where all are trainable.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    group: str
    token_axis: int
    frozen: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "axes", tuple(self.axes))
        assert len(self.axes) == len(self.shape), f"{self.name}: one axis name per axis"

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    def trainable(self) -> Tensor:
        """Boolean mask of ``shape``, true where an entry is trained."""
        if self.frozen is None:
            return torch.ones(self.shape, dtype=torch.bool)
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.frozen), dtype=np.uint8), count=self.size)
        return torch.from_numpy(bits == 0).reshape(self.shape)

    @staticmethod
    def pack_frozen(trainable: Tensor) -> str | None:
        """The ``frozen`` text for a boolean mask that is true where an entry is trained."""
        if bool(trainable.all()):
            return None
        return base64.b64encode(np.packbits(~trainable.flatten().numpy()).tobytes()).decode()


@dataclass(frozen=True)
class Layout:
    """All tensors of a field in storage order."""

    tensors: tuple[TensorSpec, ...]

    def __iter__(self):
        return iter(self.tensors)

    @property
    def num_weights(self) -> int:
        """Entries of all tensors, frozen ones included."""
        return sum(spec.size for spec in self.tensors)

    @property
    def num_trainable(self) -> int:
        """Entries that fitting may change."""
        return int(sum(spec.trainable().sum() for spec in self.tensors))

    def trainable(self) -> Tensor:
        """Mask ``(W,)`` over the flattened weights, true where an entry is trained."""
        return torch.cat([spec.trainable().flatten() for spec in self.tensors])

    def flatten(self, weights: dict[str, Tensor]) -> Tensor:
        """Weights ``(N, *shape)`` or ``shape`` each as ``(N, W)`` or ``(W,)`` in storage order; exact."""
        parts = []
        for spec in self.tensors:
            tensor = weights[spec.name]
            parts.append(tensor.reshape(*tensor.shape[: tensor.ndim - len(spec.shape)], spec.size))
        return torch.cat(parts, dim=-1)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """The exact inverse of :meth:`flatten`."""
        parts = flat.split([spec.size for spec in self.tensors], dim=-1)
        return {spec.name: part.reshape(*flat.shape[:-1], *spec.shape) for spec, part in zip(self.tensors, parts)}

    def groups(self) -> dict[str, tuple[TensorSpec, ...]]:
        """Tensors by layer, in storage order."""
        groups: dict[str, list[TensorSpec]] = {}
        for spec in self.tensors:
            groups.setdefault(spec.group, []).append(spec)
        return {name: tuple(specs) for name, specs in groups.items()}

    def to_json(self) -> list[dict]:
        """Plain lists and dicts; ``from_json`` gives an equal layout."""
        return [{k: list(v) if isinstance(v, tuple) else v for k, v in vars(spec).items()} for spec in self.tensors]

    @classmethod
    def from_json(cls, data: list[dict]) -> "Layout":
        """Rebuild a layout from :meth:`to_json`."""
        return cls(tuple(TensorSpec(**entry) for entry in data))
