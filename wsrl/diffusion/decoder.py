"""From weights to values, pictures and meshes, as a component that is saved inside a pipeline.

Letters: N fields, P points, D coordinates, C channels.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from PIL import Image
from torch import Tensor

from wsrl.encoders.precision import KeepsFloat32
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.open import open_representation
from wsrl.fields.representation import Representation
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.store.field import Field

VALUES_AT_ONCE = 1 << 22
"""Points times fields that are evaluated together, so that memory does not grow with either."""


class FieldDecoder(KeepsFloat32, ModelMixin, ConfigMixin):
    """A representation with its base field inside: all that turns weights into fields.

    Args:
        representation: ``Representation.to_dict()``.
        base: ``BaseField.to_json()``, or None for standalone fields.
        form: That of the signals, as plain JSON (``SignalForm.to_json``); None as far as the representation tells it.
    """

    @register_to_config
    def __init__(
        self,
        representation: dict,
        base: dict | None = None,
        form: dict | None = None,
    ):
        super().__init__()
        self.base_field = None if base is None else BaseField.from_json(base).eval().requires_grad_(False)
        self.form = SignalForm.from_json(form) if form else SignalForm.from_description({}, representation)
        self.register_buffer("bounds", torch.tensor(self.form.value_range))
        self._representation = None

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **options):
        """As diffusers has it; models of the earlier schema have a grid and a range in place of the form."""
        if "value_range" in config_dict:
            earlier = {key: value for key, value in config_dict.items() if key not in ("grid", "value_range")}
            form = SignalForm(
                in_features=earlier["representation"]["in_features"],
                out_features=earlier["representation"]["out_features"],
                value_range=config_dict["value_range"],
                grid=config_dict["grid"],
            )
            config_dict = earlier | {"form": form.to_json()}
        return super().extract_init_dict(config_dict, **options)

    @classmethod
    def from_representation(cls, representation: Representation, form: SignalForm) -> "FieldDecoder":
        """A decoder with its own copy of the base field of ``representation``."""
        base = representation.base
        decoder = cls(
            representation=representation.to_dict(),
            base=None if base is None else base.to_json(),
            form=form.to_json(),
        )
        if base is not None:
            decoder.base_field.load_state_dict(base.state_dict())
        return decoder

    @classmethod
    def from_store(cls, store: WeightStore) -> "FieldDecoder":
        """The decoder of a store's fields."""
        return cls.from_representation(store.representation, store.form)

    @property
    def representation(self) -> Representation:
        """The representation, built when first asked for."""
        if self._representation is None:
            self._representation = open_representation(self.config.representation, self.base_field)
        return self._representation

    @torch.no_grad()
    def decode(self, weights: dict[str, Tensor], coords: Tensor) -> Tensor:
        """Values ``(N, P, C)`` of fields ``(N, *shape)`` at ``coords (P, D)``, on the device of the weights."""
        num = len(next(iter(weights.values())))
        size = max(1, VALUES_AT_ONCE // (64 * len(coords)))
        self.representation.to(next(iter(weights.values())).device)
        parts = [
            self.representation.evaluate({name: part[start : start + size] for name, part in weights.items()}, coords)
            for start in range(0, num, size)
        ]
        return torch.cat(parts)

    def images(self, weights: dict[str, Tensor], size: Sequence[int] | None = None) -> list[Image.Image]:
        """Pictures of fields.

        Args:
            weights: Fields ``(N, *shape)``.
            size: Height and width; None takes the grid that the fields were fitted on.

        Returns:
            One grey or colour picture per field, values cut to the value range; none where the fields are not pictures.
        """
        grid = size or self.form.grid
        if grid is None or not self.form.is_picture:
            return []
        coords = grid_coords(tuple(grid)).to(next(iter(weights.values())).device)
        values = self.decode(weights, coords)
        assert values.shape[1] == prod(grid)
        low, high = self.bounds
        levels = ((values - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
        return [picture(field.reshape(*grid, -1)) for field in levels]

    def meshes(self, weights: dict[str, Tensor], resolution: int = 128) -> Iterator:
        """Meshes of shapes, one at a time; all fields of shapes are negative inside and zero on the surface.

        Args:
            weights: Fields ``(N, *shape)``.
            resolution: Cells of a side of the grid.

        Yields:
            One ``trimesh.Trimesh`` per field; nothing where the fields are not shapes.
        """
        num = len(next(iter(weights.values())))
        fields = (self.field({name: tensor[i] for name, tensor in weights.items()}) for i in range(num))
        return (field.mesh(resolution) for field in fields if self.form.is_shape)

    def field(self, weights: dict[str, Tensor]) -> Field:
        """One field ``shape`` as a callable from coordinates to values, on the device of the decoder."""
        here = {name: tensor.to(self.bounds.device) for name, tensor in weights.items()}
        return Field(self.representation, here, self.form)


def picture(levels: Tensor) -> Image.Image:
    """A picture of bytes ``(height, width, C)`` with one, three or four channels."""
    return Image.fromarray(levels.squeeze(-1).numpy() if levels.shape[-1] == 1 else levels.numpy())
