"""One stored field as a callable.

Letters: P points, D coordinates, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import grid_coords

_POINTS_AT_ONCE = 1 << 16


class Field:
    """A field that was read from a store, ready to be evaluated anywhere.

    Args:
        representation: How weights become a field.
        weights: Weights of this field, without a batch axis.
        form: That of its signal; the grid gives pictures their aspect.
    """

    def __init__(self, representation, weights: dict[str, Tensor], form: SignalForm):
        self.representation = representation
        self.weights = weights
        self.form = form

    @torch.no_grad()
    def __call__(self, coords: Tensor) -> Tensor:
        """Values ``(..., C)`` at coordinates ``(..., D)`` in [-1, 1].

        Args:
            coords: A tensor, an array or nested lists of numbers; they are computed in the weights' type, on their
                device.

        Raises:
            UserError: The coordinates are no real numbers, or their last axis is not D.
        """
        points = self._points(coords)  # (P, D)
        batched = {name: tensor[None] for name, tensor in self.weights.items()}
        parts = [self.representation.evaluate(batched, part)[0] for part in points.split(_POINTS_AT_ONCE)]
        return torch.cat(parts).reshape(*np.shape(coords)[:-1], self.form.out_features)  # (..., C)

    def _points(self, coords) -> Tensor:
        """Coordinates ``(..., D)`` as points ``(P, D)`` in the weights' type, on their device."""
        features = self.form.in_features
        allowed = f"real numbers (..., {features}): {features} coordinate(s) in [-1, 1] in the last axis"
        try:
            points = torch.as_tensor(coords)
        except (TypeError, ValueError, RuntimeError) as error:
            wrong = f"the coordinates are no array of numbers: {type(coords).__name__}"
            raise UserError(wrong, allowed=allowed, do="pass a tensor or an array") from error
        if points.dtype == torch.bool or points.is_complex():
            raise UserError(f"the coordinates are {points.dtype}", allowed=allowed, do="convert them to float32")
        if points.dim() == 0 or points.shape[-1] != features:
            raise UserError(
                f"the coordinates have the shape {tuple(points.shape)}",
                allowed=allowed,
                do=f"give them {features} in the last axis, as wsrl.signals.signal.grid_coords does",
            )
        like = next(iter(self.weights.values()))
        return points.to(like.device, like.dtype).reshape(-1, features)  # (P, D)

    def image(self, size: int | tuple[int, int]):
        """Render a field of two coordinates as a picture.

        Args:
            size: Height and width in pixels; one number is the longer side, the other follows the signal's grid.

        Returns:
            A PIL image, grey, RGB or RGBA, with values clipped to [0, 1].

        Raises:
            UserError: The field is no picture.
        """
        from PIL import Image

        if not self.form.is_picture:
            raise self.without("picture", "2 coordinates to 1, 3 or 4 channels")
        height, width = self._sides(size) if isinstance(size, int) else size
        values = self(grid_coords((height, width))).clamp(0, 1)  # (P, C)
        pixels = (values * 255).round().to(torch.uint8).reshape(height, width, -1).numpy()
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def mesh(
        self, resolution: int = 128, *, transform: tuple[Sequence[float], float] | None = None, dense: bool = False
    ):
        """The surface where a field of three coordinates is zero.

        Args:
            resolution: Cells of a side of the grid over [-1, 1]^3.
            transform: Centre ``(3,)`` and scale of the shape in its file: a point of the file is the point of the field
                times the scale, plus the centre. None keeps the field's coordinates.
            dense: Evaluate the whole grid instead of the neighbourhood of the surface.

        Returns:
            A closed ``trimesh.Trimesh`` whose normals point to larger values; without faces where the field has one
            sign.

        Raises:
            SignalError: A value of the field is not a number.
            UserError: The field is no shape, or the resolution is out of range.
        """
        from wsrl.fields.surface import extract_surface

        if not self.form.is_shape:
            raise self.without("surface", "3 coordinates to a distance or an occupancy")
        device = next(iter(self.weights.values())).device
        mesh = extract_surface(lambda coords: self(coords.to(device)), resolution, dense=dense)
        if transform is not None:
            center, scale = transform
            mesh.vertices = mesh.vertices * float(scale) + np.asarray(center, dtype=np.float64)
        return mesh

    def without(self, what: str, allowed: str) -> UserError:
        """The error for a field that is asked for something it does not have.

        Args:
            what: What it is asked for.
            allowed: From what to what fields go that have it.
        """
        form = self.form
        instead = "ask for its image" if form.is_picture else "ask for its mesh" if form.is_shape else ""
        return UserError(
            f"a field from {form.in_features} coordinates to {form.out_features} values has no {what}",
            allowed=f"fields from {allowed}",
            do=f"{instead} instead" if instead else "evaluate it at points of yours, or export its state_dict",
        )

    def _sides(self, size: int) -> tuple[int, int]:
        grid = self.form.grid
        if grid is None:
            return size, size
        height, width = (max(1, round(size * side / max(grid))) for side in grid)
        return height, width
