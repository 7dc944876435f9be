"""Meshes of fields: coarse to fine gives what the whole grid gives, always closed, with normals pointing out."""

import numpy as np
import pytest
import torch
import trimesh
from skimage.measure import marching_cubes as skimage_cubes

from wsrl.errors import UserError
from wsrl.fields import surface
from wsrl.fields.cubes import CORNERS, EDGES, cell_codes, marching_cubes, triangle_table
from wsrl.fields.network import FieldConfig, Trunk, initial_layers
from wsrl.fields.surface import extract_surface


def sphere(points):
    return points.norm(dim=1) - 0.7


def torus(points):
    return ((points[:, :2].norm(dim=1) - 0.6).square() + points[:, 2].square()).sqrt() - 0.15


def wires(points):
    """Three thin rods: a distance cut at 0.1, as fields are fitted to."""
    pairs = [points[:, [0, 1]], points[:, [1, 2]], points[:, [2, 0]]]
    rods = torch.stack([pair.norm(dim=1) for pair in pairs]).amin(dim=0) - 0.02
    return torch.maximum(rods, points.abs().amax(dim=1) - 0.8).clamp(-0.1, 0.1)


def occupancy(points):
    return 200.0 * torus(points).clamp(-0.05, 0.05)


def slanted(points):
    return 3.0 * (points @ torch.tensor([0.3, -0.5, 0.2])) - 0.05


def network(seed, width=16, **options):
    """A random network, moved so that half of the cube is inside."""
    config = FieldConfig(width=width, depth=2, seed=seed, **options)
    trunk = Trunk(config, 3, 1)
    weights, biases = initial_layers(config, 3, 1, torch.Generator().manual_seed(seed))
    for layer, weight, bias in zip(trunk.layers, weights, biases):
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(bias)
    middle = trunk(torch.rand(999, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).median()
    return lambda points: trunk(points)[:, 0] - middle


SMOOTH = {"sphere": sphere, "torus": torus, "wires": wires, "occupancy": occupancy, "slanted": slanted}
NETWORKS = {
    "siren": network(0, encoding="identity", activation="sine", omega=5.0),
    "rough siren": network(1, encoding="identity", activation="sine", omega=30.0),
    "fourier": network(2, frequency_scale=0.3, num_frequencies=8),
    "smooth": network(3, frequency_scale=0.2, num_frequencies=8, activation="silu"),
}


def assert_closed(mesh):
    """Every edge has two faces that run along it in opposite directions."""
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert len(np.unique(mesh.vertices.astype(np.float32), axis=0)) == len(mesh.vertices)


def assert_same(one, two, atol=0.0):
    assert np.array_equal(one.faces, two.faces)
    np.testing.assert_allclose(one.vertices, two.vertices, rtol=0, atol=atol)


@pytest.mark.parametrize("name", SMOOTH | NETWORKS)
@pytest.mark.parametrize("resolution", [64, 75])
def test_coarse_to_fine_is_the_whole_grid(name, resolution):
    field = (SMOOTH | NETWORKS)[name]
    points = []
    counted = lambda coords: points.append(len(coords)) or field(coords)  # noqa: E731
    mesh = extract_surface(counted, resolution)
    coarse, dense = sum(points), extract_surface(field, resolution, dense=True)
    # A matrix product depends on how many points it is given, in the last bit: what is near zero moves by so much.
    assert_same(mesh, dense, atol=1e-6 if name in NETWORKS else 0.0)
    assert len(mesh.faces) > 0
    assert_closed(mesh)
    if name in SMOOTH:
        assert coarse < 0.5 * (resolution + 1) ** 3


@pytest.mark.parametrize("name", ["torus", "slanted", "siren"])
def test_slabs_change_nothing(monkeypatch, name):
    field = (SMOOTH | NETWORKS)[name]
    whole = extract_surface(field, 70)
    monkeypatch.setattr(surface, "NODES_AT_ONCE", 1)
    assert_same(extract_surface(field, 70), whole, atol=1e-6)
    assert_same(extract_surface(field, 70, dense=True), whole, atol=1e-6)


def test_vertices_are_those_of_scikit_image():
    resolution = 40
    axis = torch.linspace(-1, 1, resolution + 1, dtype=torch.float64).float()
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    level = 0.0123  # no node lies on it: where one does, theirs makes triangles without area
    values = torus(grid).reshape([resolution + 1] * 3).numpy()
    theirs, faces, _, _ = skimage_cubes(values, level, spacing=[2 / resolution] * 3)
    mesh = extract_surface(torus, resolution, level=level)
    assert len(mesh.faces) == len(faces)
    from scipy.spatial import cKDTree

    distances, nearest = cKDTree(theirs - 1).query(mesh.vertices)
    assert len(theirs) == len(mesh.vertices) == len(set(nearest))
    assert distances.max() < surface.CHAMFER * 2 / resolution + 1e-3 * 2 / resolution


@pytest.mark.parametrize("resolution", [2, 3, 5, 31, 47, 100])
def test_a_ball_has_its_volume_and_normals_point_out(resolution):
    mesh = extract_surface(sphere, resolution)
    assert_closed(mesh)
    exact = 4 / 3 * np.pi * 0.7**3
    assert exact * (1 - 8 / resolution**2) < mesh.volume < exact or resolution < 5
    assert (np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center) > 0).all()


def test_two_shapes_and_one_in_the_other():
    def shell(points):  # hollow, beside a small ball
        distance = points.norm(dim=1)
        return torch.minimum(torch.maximum(distance - 0.6, 0.4 - distance), (points - 0.8).norm(dim=1) - 0.1)

    mesh = extract_surface(shell, 64)
    assert_closed(mesh)
    assert len(mesh.split(only_watertight=True)) == 3
    volume = 4 / 3 * np.pi * (0.6**3 - 0.4**3 + 0.1**3)
    assert mesh.volume == pytest.approx(volume, rel=0.02)


@pytest.mark.parametrize(
    ("field", "volume"),
    [
        (lambda points: points[:, 0] - 0.25, 5.0),
        (lambda points: torch.full((len(points),), -1.0), 8.0),
        (lambda points: points.amax(dim=1) - 0.25, 1.25**3),
        (lambda points: -sphere(points), 8 - 4 / 3 * np.pi * 0.7**3),
    ],
)
def test_what_leaves_the_cube_is_closed_at_its_border(field, volume):
    for resolution in (17, 64):
        mesh = extract_surface(field, resolution)
        assert_closed(mesh)
        assert np.abs(mesh.vertices).max() <= 1
        assert mesh.volume == pytest.approx(volume, rel=0.01)
        assert_closed(trimesh.load(trimesh.util.wrap_as_stream(mesh.export(file_type="ply")), file_type="ply"))


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-12, float("inf")])
def test_a_field_that_is_nowhere_negative_has_no_faces(value):
    mesh = extract_surface(lambda points: torch.full((len(points), 1), value), 33)
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3)


@pytest.mark.parametrize("values", ["level", "ties", "tiny", "steep", "infinite"])
@pytest.mark.parametrize("seed", range(3))
def test_no_values_leave_holes(values, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = {
        "level": lambda shape: torch.randint(-1, 2, shape, generator=generator).float(),
        "ties": lambda shape: torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0,
        "tiny": lambda shape: torch.randn(shape, generator=generator) * 1e-38,
        "steep": lambda shape: torch.randn(shape, generator=generator) ** 9 * 1e9,
        "infinite": lambda shape: torch.randn(shape, generator=generator) / 0.0,
    }[values]((21, 21, 21))
    mesh = extract_surface(lambda points: noise[tuple(((points + 1) * 10).round().long().T)], 20)
    assert len(mesh.faces) > 1000
    assert_closed(mesh)


def test_level():
    assert_same(extract_surface(sphere, 40, level=-0.2), extract_surface(lambda p: sphere(p) + 0.2, 40), atol=1e-7)


def test_what_was_left_out_is_evaluated_where_the_surface_runs_into_it(monkeypatch):
    def wall(points):  # flat to 0.2 inside, so that only one side of the surface looks steep
        return torch.where(points[:, 0] < 0.031, -0.01, 1.0)

    monkeypatch.setattr("wsrl.fields.blocks.SAFETY", 1e-9)  # every block whose corners have one sign is left out
    mesh = extract_surface(lambda points: torch.minimum(wall(points), torus(points)), 64)
    assert_closed(mesh)
    assert_same(mesh, extract_surface(lambda points: torch.minimum(wall(points), torus(points)), 64, dense=True))
    monkeypatch.setattr(surface, "NODES_AT_ONCE", 1)
    again = extract_surface(lambda points: torch.minimum(wall(points), torus(points)), 64)
    assert_same(mesh, again)


@pytest.mark.parametrize("where", [-0.99, 0.0])
def test_a_value_that_is_no_number_is_refused(where):
    def field(points):
        return torch.where(points[:, 0] > where, sphere(points), float("nan"))

    with pytest.raises(UserError, match=r"not a number at \(-1, -1, -1\)\. Allowed: "):
        extract_surface(field, 20)


@pytest.mark.parametrize("resolution", [-1, 0, 1, 4096])
def test_resolution_out_of_range(resolution):
    with pytest.raises(UserError, match=f"resolution is {resolution}. Allowed: 2 to"):
        extract_surface(sphere, resolution)


def test_points_come_in_batches_without_gradients():
    sizes = []

    def field(points):
        sizes.append(len(points))
        assert points.dtype == torch.float32 and points.abs().max() <= 1 and not torch.is_grad_enabled()
        return sphere(points)[:, None]

    extract_surface(field, 64, dense=True)
    assert max(sizes) == surface.EVALUATED_AT_ONCE and sum(sizes) == 65**3


def test_table_has_all_crossings_and_no_diagonal_in_a_face_of_the_cell():
    table, counts = triangle_table()
    for code in range(256):
        inside = [bool(code >> corner & 1) for corner in range(8)]
        used = set(table[code, : counts[code]].flatten().tolist())
        other = [corner + (4, 2, 1)[axis] for corner, axis in EDGES]
        assert used == {i for i, (corner, _) in enumerate(EDGES) if inside[corner] != inside[other[i]]}
        middles = np.array([CORNERS[corner] + 0.5 * np.eye(3)[axis] for corner, axis in EDGES])
        edges = [
            frozenset(pair) for row in table[code, : counts[code]].tolist() for pair in zip(row, row[1:] + row[:1])
        ]
        for edge in set(edges):
            first, second = middles[list(edge)]
            in_face = ((first == second) & np.isin(first, (0, 1))).any()
            assert edges.count(edge) == (1 if in_face else 2)


def test_one_corner_inside_is_cut_off():
    values = np.ones((2, 2, 2))
    values[1, 0, 1] = -3.0
    edges, along, triangles = marching_cubes(values)
    assert cell_codes(values < 0).item() == 1 << 5
    assert len(edges) == 1 and len(along) == 1, "edges of the last plane belong to what lies behind"
    assert along == pytest.approx(0.25) and triangles.shape == (1, 3)
