"""Soups become solids: closed forms, defects, and what is left alone."""

import itertools

import numpy as np
import pytest
import trimesh

from wsrl.signals.shapes import signed_distance
from wsrl.signals.shapes.closest import ClosestPoint
from wsrl.signals.shapes.solid import MeshSolid
from wsrl.signals.shapes.soup import NORMALISED_RADIUS
from wsrl.signals.shapes.thin_shells import HALF_THICKNESS

FACETING = 1.1e-3  # of a sphere of radius 0.9 with 5,120 faces: its sagitta


def box_distance(points, half):
    outside = np.abs(points) - half
    return np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(axis=1), 0)


def torus_distance(points, major, minor):
    return np.hypot(np.hypot(points[:, 0], points[:, 1]) - major, points[:, 2]) - minor


def sphere():
    return trimesh.creation.icosphere(subdivisions=4), lambda p: np.linalg.norm(p, axis=1) - NORMALISED_RADIUS


def box():
    half = np.array([3.0, 2.0, 1.0]) * NORMALISED_RADIUS / np.sqrt(14)
    return trimesh.creation.box([3, 2, 1]), lambda p: box_distance(p, half)


def torus():
    mesh = trimesh.creation.torus(0.65, 0.25, major_sections=128, minor_sections=64)
    size = np.linalg.norm(mesh.vertices, axis=1).max() / NORMALISED_RADIUS
    return mesh, lambda p: torus_distance(p, 0.65 / size, 0.25 / size)


SHAPES = {"sphere": sphere, "box": box, "torus": torus}


def points_around(solid, num=4000, seed=5):
    generator = np.random.default_rng(seed)
    surface, _ = solid.sample_surface(num, generator)
    return np.concatenate([surface + 0.03 * generator.standard_normal((num, 3)), generator.uniform(-1, 1, (num, 3))])


def agreement(distance, truth, beyond=0.005):
    far = np.abs(truth) > beyond
    return ((distance < 0) == (truth < 0))[far].mean()


def without(mesh, share, seed=0):
    """The mesh without a share of its faces."""
    kept = np.random.default_rng(seed).random(len(mesh.faces)) >= share
    return trimesh.Trimesh(mesh.vertices, mesh.faces[kept], process=False)


def shuffled(mesh, seed=0):
    """A soup: corners of its own for each face, a half of the faces turned round."""
    turned = np.random.default_rng(seed).random(len(mesh.faces)) < 0.5
    triangles = np.where(turned[:, None, None], mesh.triangles[:, ::-1], mesh.triangles)
    return trimesh.Trimesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3), process=False)


@pytest.mark.parametrize("name", SHAPES)
def test_closed_meshes_are_exact_and_used(name):
    mesh, truth = SHAPES[name]()
    solid = MeshSolid(mesh)
    points = points_around(solid)
    distance, expected = solid.signed_distance(points), truth(points)
    assert (solid.verdict, solid.reasons) == ("used", ())
    assert agreement(distance, expected) == 1.0
    assert np.abs(distance - expected).mean() <= FACETING
    assert solid.quality["sign_agreement"] >= 0.999
    assert solid.quality["watertight"] == 1


def test_the_distance_to_a_box_has_no_error():
    mesh, truth = box()
    solid = MeshSolid(mesh)
    points = points_around(solid)
    np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-9)


@pytest.mark.parametrize("name", ["sphere", "torus"])
def test_a_twentieth_of_the_faces_may_be_missing(name):
    mesh, truth = SHAPES[name]()
    solid = MeshSolid(without(mesh, 0.05))
    points = points_around(solid)
    assert solid.verdict == "repaired"
    assert solid.quality["holes_closed"] > 100
    assert agreement(solid.signed_distance(points), truth(points)) >= 0.99


def test_the_tolerance_for_missing_faces_has_an_end():
    mesh, truth = sphere()
    solid = MeshSolid(without(mesh, 0.9))
    points = points_around(solid)
    assert agreement(solid.signed_distance(points), truth(points)) < 0.99


@pytest.mark.parametrize("name", SHAPES)
def test_a_soup_with_turned_faces_is_the_same_solid(name):
    mesh, truth = SHAPES[name]()
    solid = MeshSolid(shuffled(mesh))
    points = points_around(solid)
    assert solid.verdict == "repaired"
    assert "outwards" in solid.reasons[0]
    assert agreement(solid.signed_distance(points), truth(points)) == 1.0


def test_a_box_turned_inside_out_is_turned_back():
    mesh, truth = box()
    mesh.invert()
    solid = MeshSolid(mesh)
    points = points_around(solid)
    np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-9)
    assert solid.verdict == "repaired"


def test_an_offset_of_a_million_units_is_taken_off_first():
    mesh, truth = box()
    moved = trimesh.Trimesh(mesh.vertices + 1e6, mesh.faces, process=False)
    solid = MeshSolid(moved)
    points = points_around(solid)
    np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-8)
    np.testing.assert_allclose(solid.mesh.vertices * solid.scale + solid.center, moved.triangles.reshape(-1, 3))
    assert solid.verdict == "used"


@pytest.mark.parametrize("turned", [False, True])
def test_a_shell_inside_is_a_void_only_if_it_faces_inwards(turned):
    outer, inner = trimesh.creation.box(), trimesh.creation.box([0.5, 0.5, 0.5])
    if turned:
        inner.invert()
    solid = MeshSolid(trimesh.util.concatenate([outer, inner]))
    side = 0.9 / np.sqrt(3)
    middle = solid.signed_distance(np.zeros((1, 3)))[0]
    assert middle == pytest.approx(side / 2 if turned else -side, abs=1e-9)
    assert solid.quality["voids"] == turned
    assert solid.verdict == ("used" if turned else "repaired")


def test_a_void_stays_one_when_everything_is_inside_out():
    outer, inner = trimesh.creation.box(), trimesh.creation.box([0.5, 0.5, 0.5])
    outer.invert()
    solid = MeshSolid(trimesh.util.concatenate([outer, inner]))
    assert solid.signed_distance(np.array([[0, 0, 0], [0.38, 0, 0.0]])).tolist() == pytest.approx(
        [0.45 / np.sqrt(3), 0.45 / np.sqrt(3) - 0.38], abs=1e-9
    )


def test_faces_inside_overlapping_parts_do_not_count():
    parts = [
        trimesh.creation.box([2, 1, 1], transform=trimesh.transformations.translation_matrix([x, 0, 0])) for x in (0, 1)
    ]
    solid = MeshSolid(trimesh.util.concatenate(parts))
    half = np.array([1.5, 0.5, 0.5]) / solid.scale
    points = points_around(solid)
    error = np.abs(solid.signed_distance(points) - box_distance(points, half))
    assert error.mean() < 1e-3
    assert error.max() < 0.05  # near the seam, where divided faces end
    assert solid.quality["buried_share"] == pytest.approx(0.1)  # two of twenty units: the ends; long sides coincide


def test_an_open_bottom_is_closed():
    mesh, truth = box()
    open_box = trimesh.Trimesh(mesh.vertices, mesh.faces[mesh.face_normals[:, 2] > -0.5], process=False)
    solid = MeshSolid(open_box)
    points = points_around(solid)
    np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-9)
    assert "closed 1 holes" in solid.reasons
    surface, normals = solid.sample_surface(2000, np.random.default_rng(0))
    assert (normals[:, 2] < -0.99).mean() == pytest.approx(6 / 22, abs=0.05)  # the cap is part of the surface
    assert np.abs(truth(surface)).max() < 1e-9


def test_doubled_faces_enclose_what_single_ones_do():
    mesh, truth = box()
    solid = MeshSolid(trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:, ::-1]]), process=False))
    points = points_around(solid)
    np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-9)
    assert solid.quality["duplicates"] == 12


@pytest.mark.parametrize("twice", [s for n in range(1, 7) for s in itertools.combinations(range(6), n)])
def test_sides_that_are_given_both_ways_close_the_solid(twice):
    """libigl/libigl#644: one side of a box or some, also with a triangle left over, are as good as none or all."""
    mesh, truth = box()
    sides = mesh.face_normals @ [1, 2, 3]
    turned = mesh.faces[np.isin(sides, np.unique(sides)[list(twice)])][:, ::-1]
    for more in (turned, turned[1:]):
        solid = MeshSolid(trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, more]), process=False))
        points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
        np.testing.assert_allclose(solid.signed_distance(points), truth(points), atol=1e-9)
        assert solid.reasons == ((f"dropped {len(more)} doubled faces",) if len(more) else ())


@pytest.mark.parametrize("twice", [(0,), (0, 2), (0, 1, 2), (2, 3, 4, 5), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("tilted", [False, True])
def test_sides_that_are_given_both_ways_with_other_diagonals(twice, tilted):
    """libigl/libigl#644, as programs write it that turn quadrilaterals and divide them then."""
    corners = np.array([(x, y, z) for x in (0, 2) for y in (0, 3) for z in (0, 4)], float)
    turn = trimesh.transformations.rotation_matrix(1, [1, 2, 3])[:3, :3] if tilted else np.eye(3)
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    sides += [sides[k][::-1] for k in twice]
    faces = [triangle for a, b, c, d in sides for triangle in ((a, b, c), (a, c, d))]
    solid = MeshSolid(trimesh.Trimesh((corners @ turn.T).astype(np.float32), faces, process=False))
    places = np.array(
        [(1, 1.5, 2), (0.1, 0.1, 0.1), (1.9, 2.9, 3.9), (-0.3, 1, 1), (2.3, 1, 1), (1, 1, 4.3), (1, 3.3, 1)]
    )
    distance = solid.signed_distance((places @ turn.T - solid.center) / solid.scale) * solid.scale
    np.testing.assert_allclose(distance, [-1, -0.1, -0.1, 0.3, 0.3, 0.3, 0.3], atol=1e-5)


def test_a_wall_that_is_given_both_ways_is_no_skin():
    """libigl/libigl#644, its control: a doubled face that closes nothing stays out of the skin."""
    halves = [trimesh.creation.box(bounds=[[x, 0, 0], [x + 1, 1, 1]]) for x in (0, 1)]
    whole = trimesh.util.concatenate(halves)  # both have the wall at x = 1, the second turned
    solid = MeshSolid(whole)
    middle = (np.array([[1.0, 0.5, 0.5]]) - solid.center) / solid.scale
    assert solid.signed_distance(middle) * solid.scale == pytest.approx(-0.5, abs=1e-9)


def test_a_plane_becomes_a_thick_sheet():
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    solid = MeshSolid(trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False))
    half = np.array([0.9, 0.9, 0.0]) / np.sqrt(2)
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    np.testing.assert_allclose(solid.signed_distance(points), box_distance(points, half) - HALF_THICKNESS, atol=1e-9)
    assert solid.verdict == "repaired"
    assert "thickened open sheets" in solid.reasons[-1]


def test_surface_samples_lie_on_the_union_of_a_solid_and_its_sheets():
    wing = trimesh.Trimesh([[0, -1, 0], [2, -1, 0], [2, 1, 0], [0, 1, 0.0]], [[0, 1, 2], [0, 2, 3]], process=False)
    solid = MeshSolid(trimesh.util.concatenate([trimesh.creation.box(), wing]))
    surface, normals = solid.sample_surface(3000, np.random.default_rng(0))
    assert solid.quality["thickened"] == 1
    assert np.abs(solid.signed_distance(surface)).max() < 2e-6
    assert (solid.signed_distance(surface + 1e-3 * normals) > 0).mean() > 0.99
    assert (solid.signed_distance(surface - 1e-3 * normals) < 0).mean() > 0.99


def test_the_side_of_the_closest_face_is_that_of_the_winding_number():
    mesh, _ = torus()
    closest = ClosestPoint(mesh.triangles)
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    distance, side = closest.sides(points)
    assert (side != 0).all()
    assert agreement(side * distance, torus_distance(points, 0.65, 0.25)) == 1.0
    unsure = ClosestPoint(mesh.triangles, np.ones(len(mesh.faces), bool))
    assert (unsure.sides(points)[1] == 0).all()
    open_mesh = ClosestPoint(mesh.triangles[:-400])
    known = open_mesh.sides(points)[1]
    assert 0 < (known == 0).mean() < 0.5  # its rim tells nothing


def test_the_same_mesh_gives_the_same_solid():
    soup = without(shuffled(trimesh.creation.icosphere(subdivisions=3)), 0.1)
    first, second = MeshSolid(soup), MeshSolid(soup)
    points = points_around(first)
    assert (first.signed_distance(points) == second.signed_distance(points)).all()
    assert first.quality == second.quality


def test_signed_distances_are_in_the_units_of_the_mesh():
    half, center = np.array([3.0, 2.0, 1.0]), np.array([10.0, -20.0, 5.0])
    mesh = trimesh.creation.box(2 * half)
    mesh.apply_translation(center)
    points = np.random.default_rng(0).uniform(-4, 4, (200, 3)) + center
    np.testing.assert_allclose(signed_distance(mesh, points), box_distance(points - center, half), atol=1e-9)
    assert signed_distance(mesh, [center])[0] == pytest.approx(-1.0)


def test_thin_walls_are_measured():
    assert MeshSolid(trimesh.creation.box([1, 1, 5e-3])).quality["thin_share"] == pytest.approx(1, abs=0.05)
    assert MeshSolid(trimesh.creation.box([1, 1, 0.1])).quality["thin_share"] == 0
