"""What a shape is to the fitting: a solid with a signed distance, negative inside.

Letters: P points, S surface samples, V vertices, F faces.
"""

from collections.abc import Callable

import igl
import numpy as np
import trimesh

from wsrl.errors import SignalError
from wsrl.signals.shapes.boundary import BOUNDARY, BURIED, NEGLIGIBLE, SHEET, Winding, caps, classify, winding_patches
from wsrl.signals.shapes.closest import ClosestPoint, touching_others
from wsrl.signals.shapes.orientation import Oriented, edge_balance, orient
from wsrl.signals.shapes.soup import Soup, clean
from wsrl.signals.shapes.thin_shells import HALF_THICKNESS, ThickSheets
from wsrl.signals.shapes.triangles import area_vectors, double_areas, sample_triangles
from wsrl.signals.shapes.twofold import split_twofold

THICKENED_SHARE = 0.005
AGREEMENT_POINTS = 1_000
AGREEMENT_RAYS = 3
SURFACE_ERROR = 1e-6
THIN = 0.01
TRUSTED = 0.02
"""Within this distance the side of the closest face is believed even where the shell has gaps."""


def signed_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distance of points to a mesh as it comes, open, doubled or in parts that cut each other: negative inside.

    For many calls on one mesh make a :class:`MeshSolid`, which is what takes the time.

    Args:
        mesh: Triangles in any units.
        points: Points ``(P, 3)`` in the same units.

    Returns:
        Distances ``(P,)`` in the same units, float64.

    Raises:
        SignalError: The mesh encloses nothing and cannot be made to.
    """
    solid = MeshSolid(mesh)
    return solid.scale * solid.signed_distance((np.asarray(points, np.float64) - solid.center) / solid.scale)


class Solid:
    """A solid in normalised coordinates; sources with exact distances derive from it.

    Attributes:
        mesh: Its boundary, normals pointing out.
        center: Point of the file's coordinates that became the origin.
        scale: Length in the file's units of one normalised unit: ``file = normalised * scale + center``.
        quality: Plain numbers that tell how good the boundary is.
        verdict: ``used`` as it came, or ``repaired``.
        reasons: What was repaired.
    """

    mesh: trimesh.Trimesh
    center: np.ndarray = np.zeros(3)
    scale: float = 1.0
    quality: dict[str, float] = {}  # noqa: RUF012
    verdict: str = "used"
    reasons: tuple[str, ...] = ()

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points to the boundary, negative inside.

        Args:
            points: Points ``(P, 3)`` in normalised coordinates.

        Returns:
            Distances ``(P,)``, float64.
        """
        raise NotImplementedError

    def sample_surface(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points spread evenly over the boundary.

        Args:
            num: How many.
            generator: Source of the randomness.

        Returns:
            Points ``(num, 3)`` and unit normals ``(num, 3)``.
        """
        return sample_triangles(np.asarray(self.mesh.triangles), num, generator)


class MeshSolid(Solid):
    """A soup of triangles made a solid.

    A surface that is closed and consistent stays exactly as it is. Otherwise, in this order: what is no triangle is
    dropped, equal vertices are joined, faces are turned out, patches that would only blur the winding number are taken
    from it, holes are closed, and of the rest only what bounds the inside counts for the distance. Sheets that enclose
    nothing are thickened where they are a visible share of the shape.

    Args:
        mesh: Triangles in the file's units.

    Raises:
        SignalError: It encloses nothing and cannot be made to.
    """

    def __init__(self, mesh: trimesh.Trimesh):
        generator = np.random.default_rng(0)
        # in the unit sphere, without what is no triangle; faces given both ways are no walls and set apart
        soup = clean(np.asarray(mesh.vertices), np.asarray(mesh.faces))
        self.center, self.scale = soup.center, soup.scale
        core, loose = split_twofold(soup)
        # turned out; faces without area keep edges together but say nothing about sides
        oriented = orient(soup.vertices, core)
        flat = double_areas(soup.vertices[oriented.faces]) == 0
        faces, patch = oriented.faces[~flat], oriented.patch[~flat]
        # the shell whose winding number decides: patches that bound something, and caps over the holes
        takes_part = np.ones(len(faces), bool)
        if not oriented.closed.all():
            takes_part = winding_patches(soup.vertices, faces, patch, generator)[patch]
        vertices, cap_faces, num_holes = caps(soup.vertices, faces[takes_part], generator)
        self._shell = vertices, np.concatenate([faces[takes_part], cap_faces])
        self._winding = Winding(*self._shell)
        # sealed: no edge of the shell is open, so the side of the closest face is to be believed everywhere
        self._sealed = not edge_balance(self._shell[1], len(vertices))[2].any()
        # everything that may bound, caps and loose faces as one patch of their own
        others = np.concatenate([loose, cap_faces])
        candidates = vertices[np.concatenate([faces, others])]
        patches = np.concatenate([patch, np.full(len(others), patch.max() + 1)])
        solid = double_areas(candidates) > 0
        triangles, kinds = classify(candidates[solid], patches[solid], self._winding, generator)
        # a good mesh stays as it is: what little the samples judge otherwise is rounding
        if oriented.closed.all() and not len(loose) and share_of(triangles, kinds != BOUNDARY) < NEGLIGIBLE:
            triangles, kinds = candidates[solid], np.full(int(solid.sum()), BOUNDARY)
        self._keep(triangles, kinds)
        self.quality = self._measure(soup, oriented, triangles, kinds, num_holes, len(loose), generator)
        self.reasons = tuple(reason for reason in map(str, repairs(self.quality)) if reason)
        self.verdict = "repaired" if self.reasons else "used"

    def _keep(self, triangles: np.ndarray, kinds: np.ndarray) -> None:
        """Remember what bounds the solid, and the sheets if they are to be thickened."""
        # closest points on what bounds; corners where it touches other kinds have no normal to believe
        bounding, sheets = triangles[kinds == BOUNDARY], triangles[kinds == SHEET]
        doubtful = touching_others(triangles, kinds)[kinds == BOUNDARY]
        self._closest = ClosestPoint(bounding, doubtful) if len(bounding) else None
        if len(sheets) and self._closest is not None:  # what lies on the solid adds nothing to it
            sheets = sheets[self._closest.distance(sheets.mean(1)) > HALF_THICKNESS]
        # sheets that are a visible share of the shape become thin plates
        areas = [double_areas(part).sum() for part in (bounding, sheets)]
        self._sheet_share = float(areas[1] / sum(areas)) if sum(areas) else 0.0
        self._sheets = ThickSheets(sheets) if self._sheet_share > THICKENED_SHARE else None
        self._bounding = bounding
        kept = np.concatenate([bounding, sheets]) if self._sheets is not None else bounding
        if not len(kept):
            raise SignalError("it encloses nothing")
        self.mesh = trimesh.Trimesh(kept.reshape(-1, 3), np.arange(3 * len(kept)).reshape(-1, 3), process=False)

    def _measure(
        self,
        soup: Soup,
        oriented: Oriented,
        triangles: np.ndarray,
        kinds: np.ndarray,
        num_holes: int,
        num_loose: int,
        generator: np.random.Generator,
    ) -> dict[str, float]:
        _, parts = igl.facet_components(oriented.faces)
        clean_input = oriented.closed.all() and not oriented.flipped and not num_loose
        return soup.counts | {
            "watertight": float(clean_input),
            "num_faces": len(soup.faces),
            "num_parts": int(parts.max()) + 1,
            "open_patches": int((~oriented.closed).sum()),
            "flipped_patches": oriented.flipped,
            "voids": oriented.voids,
            "holes_closed": num_holes,
            "buried_share": share_of(triangles, kinds == BURIED),
            "sheet_share": self._sheet_share,
            "thickened": float(self._sheets is not None),
            "thin_share": self._thin_share(generator),
            "sign_agreement": self._agreement(generator),
        }

    def _thin_share(self, generator: np.random.Generator) -> float:
        """Share of the surface with a wall thinner than ``THIN``, which a coarse grid does not see."""
        if self._closest is None:
            return 0.0
        points, normals = sample_triangles(self._bounding, AGREEMENT_POINTS, generator)
        return float((self._closest.wall_thickness(points, normals) < THIN).mean())

    def _agreement(self, generator: np.random.Generator) -> float:
        """Share of points whose side the winding number and counting along rays tell alike."""
        low, high = self.mesh.bounds
        near, _ = self.sample_surface(AGREEMENT_POINTS // 2, generator)
        near += 0.05 * generator.standard_normal(near.shape)
        points = np.concatenate([near, generator.uniform(low, high, (AGREEMENT_POINTS - len(near), 3))])
        inside = self._winding(points) > 0.5
        return float((inside == inside_by_rays(*self._shell, points, generator)).mean())

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """See ``Solid``: the sign is that of the winding number, the distance that to the closest bounding point."""
        # neighbours one after the other, then back in the order that was asked for
        order = along_a_curve(points)
        ordered = np.ascontiguousarray(points[order], np.float64)
        distance = np.full(len(points), np.inf)
        if self._closest is not None:
            distance = self._distance_to_boundary(ordered)
        if self._sheets is not None:
            distance = np.minimum(distance, self._sheets.distance(ordered))
        result = np.empty(len(points))
        result[order] = distance
        return result

    def _distance_to_boundary(self, points: np.ndarray) -> np.ndarray:
        """Signed distance without the sheets; the winding number is asked only where the surface does not tell."""
        distance, side = self._closest.sides(points)
        known = (side != 0) & (self._sealed or distance < TRUSTED)
        unknown = np.flatnonzero(~known)
        side[unknown] = np.where(self._winding(points[unknown]) > 0.5, -1.0, 1.0)
        return side * distance

    def sample_surface(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See ``Solid``; points that lie inside the rest of the solid are drawn again."""
        if self._sheets is None:
            return sample_triangles(self._bounding, num, generator)
        parts, num_drawn = [], 0
        while num_drawn < num:
            points, normals = self._sample_union(num, generator)
            parts.append((points, normals))
            num_drawn += len(points)
        points, normals = (np.concatenate([part[k] for part in parts])[:num] for k in range(2))
        return points, normals

    def _sample_union(self, num: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points on the surfaces of sheets and solid that are not inside the other, shuffled; at most ``num``."""
        area = double_areas(self._bounding).sum() / 2
        # points on either in proportion to the areas, without those inside the other
        on_sheets = generator.binomial(num, self._sheets.area / (self._sheets.area + area))
        points, normals = self._sheets.sample(on_sheets, generator)
        free = np.abs(self._sheets.distance(points)) < SURFACE_ERROR
        if self._closest is not None:
            free[free] = self._distance_to_boundary(points[free]) > 0
            solid, solid_normals = sample_triangles(self._bounding, num - on_sheets, generator)
            points, normals = np.concatenate([points, solid]), np.concatenate([normals, solid_normals])
            free = np.concatenate([free, self._sheets.distance(solid) > 0])
        order = generator.permutation(np.flatnonzero(free))
        return points[order], normals[order]


def share_of(triangles: np.ndarray, some: np.ndarray) -> float:
    """Share of the area of triangles ``(T, 3, 3)`` that some ``(T,)`` of them have."""
    areas = double_areas(triangles)
    return float(areas[some].sum() / areas.sum())


def repairs(quality: dict[str, float]) -> list[str]:
    """What was done to a mesh, in words, by its quality record."""
    phrases: list[tuple[float, Callable[[float], str]]] = [
        (quality["out_of_range"], lambda n: f"dropped {n} faces with indices out of range"),
        (quality["not_finite"], lambda n: f"dropped {n} faces with NaN or infinite vertices"),
        (quality["zero_area"], lambda n: f"dropped {n} faces without area"),
        (quality["duplicates"], lambda n: f"dropped {n} doubled faces"),
        (quality["flipped_patches"], lambda n: f"turned faces of {n} patches outwards"),
        (quality["open_patches"], lambda n: f"{n} patches are open"),
        (quality["holes_closed"], lambda n: f"closed {n} holes"),
        (
            quality["buried_share"] if quality["buried_share"] > NEGLIGIBLE else 0,
            lambda share: f"left out {share:.1%} of the area, which lies inside",
        ),
        (quality["thickened"], lambda _: f"thickened open sheets by {HALF_THICKNESS} to each side"),
    ]
    return [say(number) for number, say in phrases if number]


def inside_by_rays(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Whether points are inside by counting along rays how often they leave more than they enter.

    Args:
        vertices: Vertices ``(V, 3)``.
        faces: Oriented faces ``(F, 3)``.
        points: Points ``(P, 3)``.
        generator: Source of the randomness.

    Returns:
        The majority of ``AGREEMENT_RAYS`` rays ``(P,)``.
    """
    if not len(faces):
        return np.zeros(len(points), bool)
    # the sign of each face for a ray: +1 where the ray leaves through it
    tree = igl.AABB()
    tree.init(vertices, faces)
    normals = area_vectors(vertices[faces])
    # inside where a ray leaves once more than it enters; the majority of the rays decides
    votes = np.zeros(len(points))
    for direction in generator.standard_normal((AGREEMENT_RAYS, 3)):
        hits = tree.intersect_ray(vertices, faces, points, np.tile(direction, (len(points), 1)))
        signs = np.sign(normals @ direction)
        votes += [sum(signs[hit[0]] for hit in along) > 0.5 for along in hits]
    return votes > AGREEMENT_RAYS / 2


def along_a_curve(points: np.ndarray) -> np.ndarray:
    """An order of points ``(P, 3)``, most in [-1, 1]^3, in which neighbours follow each other (Morton)."""
    # 64 cells a side, the 6 bits of each coordinate spread out and interleaved
    low, high = points.min(axis=0, initial=-1), points.max(axis=0, initial=1)
    cells = ((points - low) * (63 / (high - low).max())).astype(np.int64)
    for shift, mask in ((8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cells = (cells | cells << shift) & mask
    return np.argsort(cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2, kind="stable")
