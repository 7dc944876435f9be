"""Permutations of units with signs and phases: the moves of fields' weights that change no function.

A unit is a neuron of a standalone field or a rank component of an adapter. It may change places with others; where the
activation is odd, or where the unit is a rank pair ``b a``, every weight that belongs to it may also change sign; and
the phase of a sine neuron may move by half turns, each of which changes the sign of what reads it.

Letters: N fields, n units of one axis.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.symmetry.fields.sine import SineLayer, sine_layers
from wsrl.symmetry.spec.permute import Weights

ODD = ("sine", "tanh")
"""Activations for which a neuron and its negative are the same."""


@dataclass(frozen=True)
class SignedSymmetry:
    """How the units of a field may move.

    Attributes:
        axes: For each tensor the name of what acts on each of its axes, or None.
        sizes: Units of each name.
        signed: Names whose units may change sign.
        sines: For names whose units may move by half turns: their layer.
    """

    axes: Mapping[str, tuple[str | None, ...]]
    sizes: Mapping[str, int]
    signed: frozenset[str] = frozenset()
    sines: Mapping[str, SineLayer] | None = None

    def __post_init__(self):
        object.__setattr__(self, "sines", dict(self.sines or {}))

    @classmethod
    def of(cls, representation, *, signs: bool = True, phases: bool = True) -> "SignedSymmetry":
        """The symmetry of a representation.

        Args:
            representation: Has a ``layout``, ``config`` and ``field_config``, and a ``convention`` where it was
                imported.
            signs: Whether units may change sign, where that changes no function.
            phases: Whether sine neurons may move by half turns; this rounds their biases.

        Raises:
            UserError: No permutation leaves the fields as they are.
        """
        axes = {tensor.name: tensor.axes for tensor in representation.layout}
        sizes = {a: size for tensor in representation.layout for a, size in zip(tensor.axes, tensor.shape) if a}
        if not sizes:
            raise UserError(
                f"fields of the kind {representation.config.kind} have no permutation symmetry: their masks tell "
                "all units apart, so that they are canonical as they are",
                allowed="the kinds mlp, lora and mlora",
                do="use the store as it is",
            )
        if representation.config.is_adapter:  # B A is the sum of the pairs, whatever the form makes of it
            return cls(axes, sizes, frozenset(sizes) if signs else frozenset())
        activation, omegas = _activation(representation)
        if activation not in ODD or not signs:
            return cls(axes, sizes)
        if activation != "sine" or not phases or representation.field_config.residual:  # no half turns around a layer
            return cls(axes, sizes, frozenset(sizes))
        return cls(axes, sizes, frozenset(sizes), dict(zip(sizes, sine_layers(representation.layout, omegas))))

    def apply(self, weights: Weights, moves: "SignedPermutation") -> dict[str, Tensor]:
        """Move weights ``(N, *shape)``; exact in floating point but for the biases of neurons that moved by half turns.

        The phase is added in float64 and rounded once.
        """
        moved = {}
        for name, tensor in weights.items():
            for axis, unit in enumerate(self.axes[name]):
                if unit in moves.order:
                    tensor = _moved_axis(tensor, axis + 1, moves.order[unit], self._signs(name, axis, unit, moves))
            moved[name] = tensor
        for unit, layer in self.sines.items():
            if unit in moves.turns:
                shift = moves.turns[unit].to(torch.float64) * (math.pi / layer.omega)
                bias = moved[layer.bias]
                moved[layer.bias] = torch.where(shift == 0, bias, (bias.to(torch.float64) + shift).to(bias.dtype))
        return moved

    def _signs(self, tensor: str, axis: int, unit: str, moves: "SignedPermutation") -> Tensor:
        """Signs ``(N, n)`` of the units along an axis of a tensor."""
        signs = moves.signs[unit]
        if unit in moves.turns and tensor in self.sines[unit].readers and axis == 1:
            signs = signs * (1 - 2 * moves.turns[unit].remainder(2))
        return signs

    def still(self, num: int) -> "SignedPermutation":
        """The moves of ``num`` fields that leave them as they are."""
        return SignedPermutation(
            {unit: torch.arange(size).expand(num, size) for unit, size in self.sizes.items()},
            {unit: torch.ones(num, size, dtype=torch.int64) for unit, size in self.sizes.items()},
            {unit: torch.zeros(num, self.sizes[unit], dtype=torch.int64) for unit in self.sines},
        )

    def random(self, num: int, generator: torch.Generator, most_turns: int = 2) -> "SignedPermutation":
        """Random moves of ``num`` fields."""
        moves = self.still(num)
        order = {u: torch.rand(num, size, generator=generator).argsort(-1) for u, size in self.sizes.items()}
        signs = {u: torch.randint(0, 2, s.shape, generator=generator) * 2 - 1 for u, s in moves.signs.items()}
        signs = {unit: sign if unit in self.signed else moves.signs[unit] for unit, sign in signs.items()}
        turns = {
            u: torch.randint(-most_turns, most_turns + 1, t.shape, generator=generator) for u, t in moves.turns.items()
        }
        return SignedPermutation(order, signs, turns)


@dataclass(frozen=True)
class SignedPermutation:
    """How the units of N fields move: unit ``i`` is unit ``order[i]`` of before times its sign, turned.

    Attributes:
        order: Index tensors ``(N, n)`` by name.
        signs: Signs ``(N, n)``.
        turns: Half turns ``(N, n)`` of the phases of sine neurons, after the signs.
    """

    order: dict[str, Tensor]
    signs: dict[str, Tensor]
    turns: dict[str, Tensor]

    def then(self, unit: str, order: Tensor, signs: Tensor, turns: Tensor) -> "SignedPermutation":
        """These moves, and then others ``(N, n)`` of one name."""
        all_turns = dict(self.turns)
        if unit in all_turns:
            all_turns[unit] = all_turns[unit].gather(-1, order) * signs + turns
        all_signs = {**self.signs, unit: self.signs[unit].gather(-1, order) * signs}
        return SignedPermutation({**self.order, unit: self.order[unit].gather(-1, order)}, all_signs, all_turns)

    def mapped(self, function: Callable[..., Tensor], *others: "SignedPermutation") -> "SignedPermutation":
        """What a function makes of every index, sign and turn tensor ``(N, n)``, with those of others beside it."""
        parts = zip(*((each.order, each.signs, each.turns) for each in (self, *others)))
        return SignedPermutation(*({u: function(*(each[u] for each in part)) for u in part[0]} for part in parts))

    def at(self, rows: Tensor) -> "SignedPermutation":
        """The moves of some of the fields."""
        return self.mapped(lambda tensor: tensor[rows])

    def replaced(self, rows: Tensor, other: "SignedPermutation") -> "SignedPermutation":
        """These moves with those of some fields, by index, in place of their own."""
        return self.mapped(lambda old, new: old.index_copy(0, rows, new), other)


def _moved_axis(tensor: Tensor, axis: int, order: Tensor, signs: Tensor) -> Tensor:
    shape = [1] * tensor.ndim
    shape[0], shape[axis] = order.shape
    moved = tensor.gather(axis, order.reshape(shape).expand(tensor.shape))  # (N, *shape)
    return moved * signs.reshape(shape).to(tensor.dtype)


def _activation(representation) -> tuple[str, list[float]]:
    """Name of the activation, and the factor inside the sine of every hidden layer."""
    field, convention = representation.field_config, getattr(representation, "convention", None)
    name = (convention.activation if convention else None) or field.activation
    return name, [field.omega] + [convention.omega_hidden if convention else 1.0] * (field.depth - 1)
