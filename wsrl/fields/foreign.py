"""Standalone fields by the conventions of others: what a network that we did not fit expects and gives.

The numbers of such a field are stored as they were found; what differs from our own networks stands in the
:class:`Convention` beside them, so nothing is folded into weights and rounded.

Letters: N fields, P points, D coordinates, C channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.network import Encoding, linear
from wsrl.fields.representation import RepresentationConfig, StandaloneRepresentation
from wsrl.options import check, one_of, option

MORE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "elu": F.elu,
}
FINAL: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "clamp": lambda values: values.clamp(0, 1),
}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a network differs from ours, which take (down, right) in [-1, 1] and give values in [0, 1].

    Attributes:
        omega_hidden: Factor inside the sine of every hidden layer after the first.
        activation: One of ``MORE_ACTIVATIONS`` in place of the architecture's, or None.
        final: What follows the output layer: ``none``, ``sigmoid``, ``tanh`` or ``clamp`` (to [0, 1]).
        coord_order: Which of our coordinates each of the network's is, ``(1, 0)`` for (right, down); empty for ours.
        coord_scale: Factor on each of the network's coordinates, taken from ours; empty for none.
        coord_offset: Added after the factor; empty for none.
        value_scale: Factor on the network's values, one or one per channel, that makes them ours.
        value_offset: Added after the factor.
    """

    omega_hidden: float = 1.0
    activation: str | None = option(None, one_of(*MORE_ACTIVATIONS))
    final: str = option("none", one_of(*FINAL))
    coord_order: Sequence[int] = ()
    coord_scale: Sequence[float] = ()
    coord_offset: Sequence[float] = ()
    value_scale: Sequence[float] = (1.0,)
    value_offset: Sequence[float] = (0.0,)

    def __post_init__(self):
        for name in ("coord_order", "coord_scale", "coord_offset", "value_scale", "value_offset"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, Sequence) else (value,))
        constants = (self.omega_hidden, *self.coord_scale, *self.coord_offset, *self.value_scale, *self.value_offset)
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in constants):
            raise UserError("the convention holds what is no finite number", allowed="finite numbers", do="mend it")
        check(self)

    def check(self, in_features: int, out_features: int) -> None:
        """Refuse numbers of coordinates or channels that are not those of the network.

        Raises:
            UserError: A list has another length, or the order is no permutation.
        """
        if self.coord_order and sorted(self.coord_order) != list(range(in_features)):
            raise UserError(
                f"the order of the coordinates is {list(self.coord_order)}",
                allowed=f"a permutation of {list(range(in_features))}",
                do="mend it in the description of the network",
            )
        for name, sizes in (
            ("coord_scale", (0, in_features)),
            ("coord_offset", (0, in_features)),
            ("value_scale", (1, out_features)),
            ("value_offset", (1, out_features)),
        ):
            if len(getattr(self, name)) not in sizes:
                raise UserError(
                    f"{name} has {len(getattr(self, name))} numbers",
                    allowed=f"{sizes[1]} for a network of {in_features} coordinates and {out_features} channels",
                    do="mend it in the description of the network",
                )


class ForeignEncoding(Encoding):
    """Our coordinates as the network wants them, then the encoding of the architecture."""

    def __init__(self, representation: RepresentationConfig, convention: Convention, in_features: int):
        super().__init__(representation.field, in_features)
        self.convention = convention

    def forward(self, coords: Tensor) -> Tensor:
        """Encode our ``coords (P, D)`` or ``(N, P, D)``; moved in float64, so that they are rounded once."""
        convention = self.convention
        if convention.coord_order:
            coords = coords[..., list(convention.coord_order)]
        if convention.coord_scale or convention.coord_offset:
            size = coords.shape[-1]
            scale = torch.tensor(convention.coord_scale or (1.0,) * size, dtype=torch.float64, device=coords.device)
            offset = torch.tensor(convention.coord_offset or (0.0,) * size, dtype=torch.float64, device=coords.device)
            coords = (coords.double() * scale + offset).to(coords.dtype)
        return super().forward(coords)


class ForeignRepresentation(StandaloneRepresentation):
    """A standalone network of another implementation; it is evaluated, not fitted.

    Args:
        config: Architecture.
        convention: How the network differs from ours.
        in_features: Coordinates of a point.
        out_features: Channels of a value.
    """

    def __init__(self, config: RepresentationConfig, convention: Convention, in_features: int, out_features: int):
        if config.kind != "mlp" or config.field.residual:
            raise UserError(
                f"a convention is given for a field of kind {config.kind}, residual {config.field.residual}",
                allowed="the kind mlp without residual layers",
                do="leave out the convention, or describe the network as a plain mlp",
            )
        convention.check(in_features, out_features)
        super().__init__(config, None, in_features, out_features)
        self.convention = convention
        self.encoding = ForeignEncoding(config, convention, in_features)

    def evaluate_encoded(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        """Values ``(N, C, P)`` for points that :attr:`encoding` has encoded, ``(F, P)`` or ``(N, F, P)``."""
        hidden, last = features, self.field_config.depth
        for i, (weight, bias) in enumerate(zip(*self.layers(weights))):
            hidden = linear(hidden, weight, bias)
            if i < last:
                hidden = self._activate(hidden, first=i == 0)
        scale, offset = (
            torch.tensor(constants, dtype=hidden.dtype, device=hidden.device).unsqueeze(-1)
            for constants in (self.convention.value_scale, self.convention.value_offset)
        )
        return FINAL[self.convention.final](hidden) * scale + offset

    def _activate(self, values: Tensor, first: bool) -> Tensor:
        kind = self.convention.activation or self.field_config.activation
        if kind in MORE_ACTIVATIONS:
            return MORE_ACTIVATIONS[kind](values)
        if kind == "sine":
            return torch.sin(values * (self.field_config.omega if first else self.convention.omega_hidden))
        return F.silu(values) if kind == "silu" else F.leaky_relu(values, 0.2)

    def to_dict(self) -> dict:
        """Plain values from which :func:`~wsrl.fields.open.open_representation` rebuilds the representation."""
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.convention).items()}
        return {**super().to_dict(), "convention": plain}

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        raise UserError(
            "fields of an imported network are not fitted here: their start and their training are not known",
            allowed="representations of our own",
            do="fit with one of the kinds of `wsrl build`",
        )
