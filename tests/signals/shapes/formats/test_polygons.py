"""Polygons become the triangles that they are: convex or not, in any plane, from any corner, in either direction."""

import numpy as np
import pytest

from wsrl.signals.shapes.formats.polygons import Polygons, strip_triangles, triangulate

L = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]
U = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
STAR = [(np.cos(k * np.pi / 5) * (1 + k % 2 * 1.5), np.sin(k * np.pi / 5) * (1 + k % 2 * 1.5)) for k in range(10)]
FLAT_SIDE = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
SPIKE = [(0, 0), (1, 0), (2, 0), (3, 0), (1.5, 2)]  # an ear cutter that drops corners leaves cracks here
ARROW = [(0, 0), (2, 1), (0, 2), (0.5, 1)]
ARROW_TURNED = [(2, 1), (0, 2), (0.5, 1), (0, 0)]
REPEATED = [(0, 0), (3, 0), (3, 0), (3, 1), (1, 1), (1, 1), (1, 3), (0, 3), (0, 0)]
KEYHOLE = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)]  # a hole, by a slit
COMB = [
    (0, 0),
    *(p for k in range(6) for p in ((k + 0.5, 0.2), (k + 0.5, 3), (k + 1, 3), (k + 1, 0))),
    (6, -1),
    (0, -1),
]
SHAPES = {
    "L": L,
    "U": U,
    "star": STAR,
    "flat side": FLAT_SIDE,
    "spike": SPIKE,
    "arrow": ARROW,
    "arrow turned": ARROW_TURNED,
}
SHAPES |= {"repeated": REPEATED, "keyhole": KEYHOLE, "comb": COMB}
PLANES = {
    "floor": np.eye(3),
    "wall": np.eye(3)[[1, 2, 0]],
    "tilted": np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0],
}


def polygon(points, plane=PLANES["floor"], offset=0.0):
    flat = np.array(points, float)
    return np.concatenate([flat, np.zeros((len(flat), 1))], axis=1) @ plane + offset


def faces_of(points, corners=None):
    corners = np.arange(len(points)) if corners is None else np.array(corners)
    return triangulate(Polygons(vertices=points, corners=corners, sizes=np.array([len(corners)])))


def area_vectors(points, faces):
    a, b, c = np.moveaxis(points[faces], 1, 0)
    return np.cross(b - a, c - a) / 2


def balance(sides):
    """How often each side is passed in one direction more than in the other."""
    net = {}
    for start, end in sides:
        key, sign = ((start, end), 1) if start < end else ((end, start), -1)
        net[key] = net.get(key, 0) + sign * (start != end)
    return {key: number for key, number in net.items() if number}


def border_matches(points, faces):
    """Whether the border of the triangles is the ring of the polygon's corners; equal corners are one."""
    _, place = np.unique(points.round(9), axis=0, return_inverse=True)
    place = place.ravel()
    inner = [side for face in place[faces] for side in zip(face, np.roll(face, -1))]
    return balance(inner) == balance(zip(place, np.roll(place, -1)))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", SHAPES)
def test_the_triangles_are_the_polygon(name, plane):
    """mikedh/trimesh#2560, javagl/Obj#8: from any corner and either way, the area and the border."""
    for turn in range(len(SHAPES[name])):
        for way in (1, -1):
            points = polygon(np.roll(SHAPES[name], turn, axis=0)[::way], PLANES[plane], 7.0)
            faces = faces_of(points)
            vectors = area_vectors(points, faces)
            whole = np.cross(points - points[0], np.roll(points, -1, axis=0) - points[0]).sum(0) / 2
            np.testing.assert_allclose(vectors.sum(0), whole, atol=1e-9)
            # no triangle runs the other way, so none lies outside, and none is a needle
            assert (vectors @ whole > 1e-9).all()
            assert border_matches(points, faces)


def test_a_fan_fails_where_this_does_not():
    """mikedh/trimesh#2560, its control: the polygon is not one that a fan divides."""
    points = polygon(L)
    fan = np.stack([np.full(4, 2), [3, 4, 5, 0], [4, 5, 0, 1]], axis=1)
    assert (area_vectors(points, fan)[:, 2] < 0).any()


@pytest.mark.parametrize("name", SHAPES)
def test_a_face_given_both_ways_has_the_same_triangles(name):
    """libigl/libigl#644: also where its copy starts at another corner and has vertices of its own."""
    points = polygon(SHAPES[name], PLANES["tilted"])
    copy = np.roll(points[::-1], 3, axis=0)
    one, other = points[faces_of(points)], copy[faces_of(copy)]
    canonical = [sorted(map(tuple, triangle.tolist())) for triangle in np.concatenate([one, other])]
    assert sorted(canonical[: len(one)]) == sorted(canonical[len(one) :])
    np.testing.assert_allclose(
        area_vectors(points, faces_of(points)).sum(0), -area_vectors(copy, faces_of(copy)).sum(0), atol=1e-12
    )


def test_slightly_bent_polygons():
    """mikedh/trimesh#2560: numbers of a file are rounded."""
    points = polygon(U, PLANES["tilted"]) + np.random.default_rng(0).normal(size=(8, 3)) * 1e-3
    vectors = area_vectors(points, faces_of(points))
    assert np.linalg.norm(vectors, axis=1).sum() == pytest.approx(7, abs=0.02)
    assert (vectors @ vectors.sum(0) > 0).all()


def test_random_polygons_around_a_point():
    generator = np.random.default_rng(0)
    for size in (*range(4, 40), 500):
        angle = np.sort(generator.uniform(0, 2 * np.pi, size))
        angle = angle + 1e-3 * np.arange(size) / size
        radius = generator.uniform(0.2, 1, size)
        points = polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), PLANES["tilted"])
        faces = faces_of(points)
        whole = np.cross(points, np.roll(points, -1, axis=0)).sum(0) / 2
        vectors = area_vectors(points, faces)
        assert len(faces) == size - 2 and border_matches(points, faces)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1).sum(), np.linalg.norm(whole), rtol=1e-6)


def test_sizes_are_mixed_and_order_stays():
    points = polygon(L)
    corners = [0, 1, 5, *range(6), 1, 2, 3, 5, 9, 0, 1, 1, 2, 1]
    found = triangulate(Polygons(vertices=points, corners=np.array(corners), sizes=np.array([3, 6, 3, 4, 2, 1])))
    assert found[0].tolist() == [0, 1, 5] and found[5].tolist() == [1, 2, 3]
    assert found[6:8].tolist() == [[-1, -1, -1]] * 2  # corner 9 is out of range
    assert found[8].tolist() == [1, 2, 2] and found[9].tolist() == [1, 1, 1]
    assert len(triangulate(Polygons(vertices=points, corners=np.zeros(0, int), sizes=np.zeros(0, int)))) == 0


def test_polygons_without_an_area():
    assert len(faces_of(polygon([(0, 0), (1, 0), (2, 0), (3, 0)]))) == 2
    assert len(faces_of(polygon([(0, 0), (2, 2), (2, 0), (0, 2)]))) >= 1  # a bow tie


def test_strips_alternate():
    assert strip_triangles(np.arange(5)).tolist() == [[0, 1, 2], [2, 1, 3], [2, 3, 4]]
    assert strip_triangles(np.arange(2)).shape == (0, 3)
