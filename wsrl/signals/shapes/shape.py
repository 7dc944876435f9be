"""Shapes to signals: labelled points of a solid, drawn once per shape and kept.

What a shape becomes: its bounding-box centre at the origin, its farthest vertex at radius ``NORMALISED_RADIUS``;
distances are negative inside. Points of the pool lie near the surface (surface samples moved by Gaussian noise, equally
many at each scale) and evenly in the cube [-1, 1]^3; the held-out points, evenly in the cube, are never given to a fit.

Letters: P points of the pool, S surface samples, H held-out points.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import trimesh
from torch import Tensor

from wsrl.caches import data_cache
from wsrl.errors import SignalError, UserError
from wsrl.signals.form import SHAPE_QUANTITIES, UNIT_RANGE, SignalForm
from wsrl.signals.shapes.mesh import MAX_FACES
from wsrl.signals.shapes.solid import MeshSolid, Solid
from wsrl.signals.signal import Signal
from wsrl.signals.source_options import SourceOptions, is_whole

VERDICTS = ("used", "repaired", "rejected")
CUBE_TO_BALL = 8 / (4 / 3 * np.pi)
"""A share of the cube [-1, 1]^3 as a share of the unit ball."""


def default_cache() -> str:
    """Where prepared shapes are kept: ``$WSRL_CACHE/shapes``, else ``~/.cache/wsrl/shapes``, else temporary."""
    return str(data_cache("shapes"))


@dataclass(frozen=True, kw_only=True)
class ShapeOptions(SourceOptions):
    """Which shapes are taken, and how they are sampled. Lengths are in normalised units.

    Attributes:
        quantity: ``sdf`` for signed distances clamped to +-``clamp``, ``occupancy`` for 1 inside and 0 outside.
        clamp: Largest distance a field has to tell.
        near_weight: How much more an error at the surface counts than one far away.
        near_scale: Distance over which that weight falls to a third.
        near_scales: Standard deviations of the noise of the points near the surface.
        num_near: Points near the surface at each scale.
        num_uniform: Points in the cube [-1, 1]^3.
        num_surface: Points on the surface, kept for the scores.
        num_heldout: Points in the cube that no fit sees, kept for the scores.
        num_points: How many points of the pool a signal hands to the fit; None for all.
        max_faces: A mesh with more triangles is rejected.
        seed: Seed of the points; each shape adds its own id.
        cache: Folder of the prepared shapes.
    """

    quantity: str = "sdf"
    clamp: float = 0.1
    near_weight: float = 4.0
    near_scale: float = 0.02
    near_scales: tuple[float, ...] = (0.01, 0.05)
    num_near: int = 40_000
    num_uniform: int = 20_000
    num_surface: int = 20_000
    num_heldout: int = 20_000
    num_points: int | None = None
    max_faces: int = MAX_FACES
    seed: int = 0
    cache: str = field(default_factory=default_cache)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "near_scales", tuple(self.near_scales))
        if self.quantity not in SHAPE_QUANTITIES:
            raise UserError(f"quantity is {self.quantity!r}", allowed=" or ".join(SHAPE_QUANTITIES))
        for name in ("clamp", "near_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}", allowed="a number above 0")
        if not (self.near_scales and all(scale > 0 for scale in self.near_scales)):
            raise UserError(f"near_scales is {self.near_scales!r}", allowed="numbers above 0")
        if not self.near_weight >= 0:
            raise UserError(f"near_weight is {self.near_weight!r}", allowed="a number from 0")
        for name in ("num_near", "num_uniform", "num_surface", "num_heldout", "max_faces", "num_points"):
            number = getattr(self, name)
            if not (is_whole(number) and number >= 1) and not (name == "num_points" and number is None):
                raise UserError(f"{name} is {number!r}", allowed="a whole number from 1")

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return ("cache",)

    @property
    def form(self) -> SignalForm:
        """What signals of these options have in common."""
        value_range = (-self.clamp, self.clamp) if self.quantity == "sdf" else UNIT_RANGE
        return SignalForm(in_features=3, out_features=1, quantity=self.quantity, value_range=value_range)

    def sampling(self) -> dict:
        """The options that change what is prepared, as plain JSON; the others only change what is handed out."""
        names = ("near_scales", "num_near", "num_uniform", "num_surface", "num_heldout", "max_faces", "seed")
        return {name: value for name, value in asdict(self).items() if name in names}


@dataclass(frozen=True)
class Content:
    """One shape as it is given.

    Attributes:
        data: Bytes that determine the shape: the file and what it refers to, or the recipe of a procedural shape.
        make: Makes the solid, or the mesh in the file's units; raises SignalError where it cannot.
    """

    data: bytes
    make: Callable[[], Solid | trimesh.Trimesh]


@dataclass(frozen=True, kw_only=True)
class PreparedShape:
    """All that is known about one shape.

    Attributes:
        points: The pool ``(P, 3)``, float32, shuffled, so that any prefix of it is a sample of the whole.
        distances: Signed distance ``(P,)`` of each, float32, not clamped.
        surface: Points on the boundary ``(S, 3)``, float32.
        normals: Unit normals ``(S, 3)`` pointing out, float32.
        heldout_points: Points in the cube ``(H, 3)``, float32, for scores only.
        heldout_distances: Signed distances ``(H,)``, float32.
        center: Point of the file's coordinates that became the origin.
        scale: ``file = normalised * scale + center``.
        quality: Plain numbers about the mesh; ``volume_fraction`` is its share of the unit ball.
        verdict: ``used``, ``repaired`` or ``rejected``; a rejected shape has no points.
        reasons: What was repaired, or why it was rejected.
    """

    points: np.ndarray
    distances: np.ndarray
    surface: np.ndarray
    normals: np.ndarray
    heldout_points: np.ndarray
    heldout_distances: np.ndarray
    center: np.ndarray
    scale: float
    quality: dict[str, float]
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShapeSignal(Signal):
    """A signal that also knows its surface and the way back to its file's units.

    Attributes:
        surface: Points on the boundary ``(S, 3)``.
        normals: Unit normals ``(S, 3)`` pointing out.
        heldout_coords: Points ``(H, 3)`` that are not among ``coords``.
        heldout_distances: Their signed distances ``(H,)``, not clamped.
        center: Point of the file's coordinates that became the origin.
        scale: ``file = normalised * scale + center``.
        verdict: ``used`` or ``repaired``.
    """

    surface: Tensor
    normals: Tensor
    heldout_coords: Tensor
    heldout_distances: Tensor
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    verdict: str = "used"


def prepare_shape(shape: Solid | trimesh.Trimesh, options: ShapeOptions, seed: int) -> PreparedShape:
    """Draw the labelled points of one shape.

    Args:
        shape: A solid in normalised coordinates, or a mesh in any units, which is made one.
        options: How many points, and where.
        seed: Seed of this shape's points.

    Returns:
        The points; or, where the mesh cannot be made a solid, a shape with the verdict ``rejected`` and the reasons.
    """
    try:
        solid = shape if isinstance(shape, Solid) else MeshSolid(shape)
    except SignalError as error:
        return rejected(str(error))
    generator = np.random.default_rng(seed)
    surface, normals = solid.sample_surface(options.num_surface, generator)
    pool = draw_pool(solid, options, generator)
    heldout = generator.uniform(-1, 1, (options.num_heldout, 3)).astype(np.float32)
    distances = solid.signed_distance(np.concatenate([pool, heldout], dtype=np.float64)).astype(np.float32)
    distances, heldout_distances = np.split(distances, [len(pool)])
    return PreparedShape(
        points=pool,
        distances=distances,
        surface=surface.astype(np.float32),
        normals=normals.astype(np.float32),
        heldout_points=heldout,
        heldout_distances=heldout_distances,
        center=np.asarray(solid.center, np.float64),
        scale=float(solid.scale),
        quality=dict(solid.quality) | {"volume_fraction": float((heldout_distances < 0).mean()) * CUBE_TO_BALL},
        verdict=solid.verdict,
        reasons=tuple(solid.reasons),
    )


def draw_pool(solid: Solid, options: ShapeOptions, generator: np.random.Generator) -> np.ndarray:
    """Points ``(P, 3)``, float32, near the surface and in the cube, shuffled."""
    parts = [generator.uniform(-1, 1, (options.num_uniform, 3))]
    for scale in options.near_scales:
        surface, _ = solid.sample_surface(options.num_near, generator)
        parts.append(surface + scale * generator.standard_normal(surface.shape))
    pool = np.concatenate(parts).clip(-1, 1).astype(np.float32)
    return generator.permutation(pool)


def rejected(reason: str, quality: dict[str, float] | None = None) -> PreparedShape:
    """The record of a shape that cannot be used, for a reason in words of the user."""
    none, nowhere = np.zeros(0, np.float32), np.zeros((0, 3), np.float32)
    return PreparedShape(
        points=nowhere,
        distances=none,
        surface=nowhere,
        normals=nowhere,
        heldout_points=nowhere,
        heldout_distances=none,
        center=np.zeros(3),
        scale=1.0,
        quality=quality or {},
        verdict="rejected",
        reasons=(reason,),
    )


def to_signal(
    prepared: PreparedShape, options: ShapeOptions, *, id: str, label: str | None, split: str | None
) -> ShapeSignal:
    """The signal of a prepared shape.

    Args:
        prepared: The points of a shape that was not rejected.
        options: Quantity, clamp, weights and number of points.
        id: Id of the signal.
        label: Class name, or None.
        split: Split, or None.

    Raises:
        SignalError: The shape was rejected; the message has the reasons.
    """
    if prepared.verdict == "rejected":
        raise SignalError(f"{id}: {'; '.join(prepared.reasons)}")
    distances = torch.from_numpy(prepared.distances[: options.num_points])  # (P,)
    values = distances.clamp(-options.clamp, options.clamp) if options.quantity == "sdf" else (distances < 0).float()
    return ShapeSignal(
        id=id,
        coords=torch.from_numpy(prepared.points[: options.num_points]),
        values=values[:, None],
        form=options.form,
        label=label,
        split=split,
        weights=1 + options.near_weight * torch.exp(-distances.abs() / options.near_scale),
        surface=torch.from_numpy(prepared.surface),
        normals=torch.from_numpy(prepared.normals),
        heldout_coords=torch.from_numpy(prepared.heldout_points),
        heldout_distances=torch.from_numpy(prepared.heldout_distances),
        center=tuple(float(value) for value in prepared.center),
        scale=prepared.scale,
        verdict=prepared.verdict,
    )
