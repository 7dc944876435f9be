"""Nine families of shapes, drawn from a generator: five primitives, and four objects made of them.

The sizes are in units of each family's own; normalisation follows later. Objects are built standing, with z up, then
turned so that y is up, as in glTF, and posed: primitives by any rotation, objects by any heading and a tilt of at most
:data:`MAX_TILT`. Half of the objects are sharp unions, half smooth ones. Bodies that meet are placed so that no two
faces are flush and surfaces cross at a clear angle.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wsrl.signals.solids.primitives import Box, Capsule, Ellipsoid, Primitive, Revolution, Torus
from wsrl.signals.solids.union import Union

MAX_TILT = np.radians(15)
SMOOTH_ROUNDING = 0.03
Y_UP = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # takes z to y


def make_union(family: str, generator: np.random.Generator) -> Union:
    """Draw one shape of a family in a random pose.

    Args:
        family: A key of :data:`FAMILIES`.
        generator: Where all numbers come from.
    """
    shape = FAMILIES[family](generator)
    turn = any_rotation(generator) if family in PRIMITIVES else standing_pose(generator)
    bodies = tuple(replace(body, center=turn @ body.center, rotation=turn @ body.rotation) for body in shape.bodies)
    if shape.blend > 0:  # a sharp edge that runs into a blend would be curved without bound
        bodies = tuple(replace(body, rounding=max(body.rounding, SMOOTH_ROUNDING)) for body in bodies)
    return Union(bodies=bodies, blend=shape.blend)


def any_rotation(generator: np.random.Generator) -> np.ndarray:
    """A rotation, uniform over all of them."""
    quaternion = generator.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def standing_pose(generator: np.random.Generator) -> np.ndarray:
    """A rotation that leaves z nearly up, then takes z to y."""
    heading, towards = generator.uniform(0, 2 * np.pi, 2)
    tilt = generator.uniform(0, MAX_TILT)
    lean = about_z(towards) @ about_x(tilt) @ about_z(-towards)
    return Y_UP @ lean @ about_z(heading)


def about_z(angle: float) -> np.ndarray:
    """Rotation about the z axis."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def about_x(angle: float) -> np.ndarray:
    """Rotation about the x axis."""
    return np.roll(about_z(angle), (1, 1), axis=(0, 1))


def blend_width(generator: np.random.Generator) -> float:
    """Zero for a sharp union in half of the cases, else the width of a smooth one."""
    smooth, width = generator.uniform() < 0.5, generator.uniform(0.06, 0.16)
    return float(width) if smooth else 0.0


def ellipsoid(generator: np.random.Generator) -> Union:
    """An ellipsoid with half axes from 0.35 to 1."""
    return Union(bodies=(Ellipsoid(axes=generator.uniform(0.35, 1, 3)),))


def box(generator: np.random.Generator) -> Union:
    """A box with half sides from 0.25 to 1, its edges sharp or rounded."""
    half = generator.uniform(0.25, 1, 3)
    rounding = float(generator.uniform(0, 0.15)) * (generator.uniform() < 0.5)
    return Union(bodies=(Box(half=half - rounding, rounding=rounding),))


def capsule(generator: np.random.Generator) -> Union:
    """A capsule."""
    return Union(bodies=(Capsule(half_length=generator.uniform(0.3, 1), radius=generator.uniform(0.2, 0.5)),))


def torus(generator: np.random.Generator) -> Union:
    """A torus."""
    return Union(bodies=(Torus(major=1.0, minor=generator.uniform(0.15, 0.45)),))


def cone(generator: np.random.Generator) -> Union:
    """A cone, pointed or cut off, its edges sharp or rounded."""
    bottom, height = generator.uniform(0.5, 1), generator.uniform(0.8, 2)
    top = generator.uniform(0.1, 0.5) * bottom * (generator.uniform() < 0.5)
    rounding = float(generator.uniform(0, 0.1)) * (generator.uniform() < 0.5)
    return Union(bodies=(frustum(bottom, top, -height / 2, height / 2, rounding=rounding),))


def frustum(bottom: float, top: float, low: float, high: float, **where) -> Revolution:
    """A cylinder or cone, cut off or pointed, about the z axis.

    Args:
        bottom: Radius at the lower end.
        top: Radius at the upper end; 0 makes a point.
        low: Height of the lower end.
        high: Height of the upper end.
        **where: Centre, rotation and rounding.
    """
    corners = [(0, low), (bottom, low), (top, high), (0, high)]
    profile = np.array(corners if top > 0 else corners[:3], dtype=np.float64)
    return Revolution(profile=profile, **where)


def table(generator: np.random.Generator) -> Union:
    """A rectangular top on four legs, or a round one on a column with a foot."""
    thick, height = generator.uniform(0.07, 0.13), generator.uniform(0.8, 1.4)
    if generator.uniform() < 0.3:
        radius, column = generator.uniform(0.7, 1), generator.uniform(0.1, 0.18)
        foot = radius * generator.uniform(0.4, 0.7)
        top = frustum(radius, radius, height - thick, height + thick)
        stem = frustum(column, column, -0.02, height)
        base = frustum(foot, column * 1.4, -0.1, generator.uniform(0.1, 0.2))
        return Union(bodies=(top, stem, base), blend=blend_width(generator))
    half = np.array([generator.uniform(0.7, 1), generator.uniform(0.45, 0.8), thick])
    top = Box(half=half, center=np.array([0, 0, height]))
    return Union(bodies=(top, *legs(generator, half, height)), blend=blend_width(generator))


def legs(generator: np.random.Generator, half: np.ndarray, height: float) -> list[Primitive]:
    """Four equal legs from height 0 to the middle of a plate: its half sides and its height."""
    thick, square = generator.uniform(0.08, 0.13), generator.uniform() < 0.5
    inset = thick + generator.uniform(0.03, 0.1)
    stands = [np.array([x * (half[0] - inset), y * (half[1] - inset), height / 2]) for x in (-1, 1) for y in (-1, 1)]
    if square:
        return [Box(half=np.array([thick, thick, height / 2]), center=stand) for stand in stands]
    taper = generator.uniform(0.6, 1)
    return [frustum(thick * taper, thick, -height / 2, height / 2, center=stand) for stand in stands]


def chair(generator: np.random.Generator) -> Union:
    """A seat on four legs with a leaning back."""
    half = np.array([generator.uniform(0.4, 0.55), generator.uniform(0.4, 0.55), generator.uniform(0.06, 0.11)])
    height, tall = generator.uniform(0.7, 1), generator.uniform(0.4, 0.65)
    seat = Box(half=half, center=np.array([0, 0, height]))
    lean, depth = generator.uniform(0.02, 0.25), generator.uniform(0.06, 0.1)
    middle = np.array([0, half[1] - depth * 1.5 + np.sin(lean) * tall, height + np.cos(lean) * tall])
    wide = half[0] * generator.uniform(0.75, 0.95)
    back = Box(half=np.array([wide, depth, tall]), center=middle, rotation=about_x(-lean))
    return Union(bodies=(seat, *legs(generator, half, height), back), blend=blend_width(generator))


def lamp(generator: np.random.Generator) -> Union:
    """A foot, a stem and a shade, which is a full or a hollow cone."""
    height, stem = generator.uniform(1.2, 2), generator.uniform(0.07, 0.12)
    foot, shade = generator.uniform(0.35, 0.6), generator.uniform(0.5, 0.8)
    tall, top = generator.uniform(0.5, 0.8), shade * generator.uniform(0.4, 0.7)
    base = frustum(foot, foot * 0.7, -0.1, generator.uniform(0.08, 0.15))
    low, high, wall = height - tall / 2, height + tall / 2, generator.uniform(0.09, 0.13)
    hollow = generator.uniform() < 0.5
    if hollow:  # its inner edge is clear of the blend with the stem
        hood = shell(shade, max(top, stem + wall + 0.2), low, high, wall, closed_at="top")
    else:
        hood = frustum(shade, top, low, high)
    end = high - wall / 2 - stem  # the round end of the stem stays below the top of a hollow shade
    column = Capsule(half_length=(end - stem) / 2, radius=stem, center=np.array([0, 0, (end + stem) / 2]))
    return Union(bodies=(base, column, hood), blend=min(blend_width(generator), 0.13))


def mug(generator: np.random.Generator) -> Union:
    """A cup with a handle."""
    bottom, height = generator.uniform(0.4, 0.65), generator.uniform(1.1, 1.5)
    top, wall = bottom * generator.uniform(0.95, 1.25), generator.uniform(0.1, 0.15)
    cup = shell(bottom, top, -height / 2, height / 2, wall, closed_at="bottom")
    half_inside = height / 2 - wall
    ring, thick = half_inside * generator.uniform(0.4, 0.5), generator.uniform(0.06, 0.08)
    side = (bottom + top) / 2 - wall / 2
    half_angle = generator.uniform(np.pi / 2, np.pi / 2 + 0.1)
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # the arc's plane holds the axis of the cup
    handle = Torus(major=ring, minor=thick, half_angle=half_angle, center=np.array([side, 0, 0]), rotation=upright)
    clear = half_inside - ring - thick - 2 * SMOOTH_ROUNDING  # the inner edge is clear of the blend with the handle
    return Union(bodies=(cup, handle), blend=min(blend_width(generator), clear))


def shell(bottom: float, top: float, low: float, high: float, wall: float, closed_at: str) -> Revolution:
    """A hollow cylinder or cone that is open at one end.

    Args:
        bottom: Outer radius at the lower end.
        top: Outer radius at the upper end.
        low: Height of the lower end.
        high: Height of the upper end.
        wall: Thickness of the wall and of the closed end.
        closed_at: ``bottom`` or ``top``.
    """
    narrow, wide = (bottom, top) if closed_at == "bottom" else (top, bottom)
    rise = wall / (high - low)
    inner_closed = narrow + (wide - narrow) * rise - wall
    corners = np.array([(0, 0), (narrow, 0), (wide, 1), (wide - wall, 1), (inner_closed, rise), (0, rise)])
    heights = low + (high - low) * (corners[:, 1] if closed_at == "bottom" else 1 - corners[:, 1])
    return Revolution(profile=np.stack([corners[:, 0], heights], axis=1))


PRIMITIVES = ("ellipsoid", "box", "capsule", "torus", "cone")
FAMILIES: dict[str, Callable[[np.random.Generator], Union]] = {
    "ellipsoid": ellipsoid,
    "box": box,
    "capsule": capsule,
    "torus": torus,
    "cone": cone,
    "table": table,
    "chair": chair,
    "lamp": lamp,
    "mug": mug,
}
