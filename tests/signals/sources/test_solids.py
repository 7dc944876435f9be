"""Procedural shapes: balanced families, the same from seed and index, exact distances that a mesh of them confirms."""

from collections import Counter

import numpy as np
import pytest
import trimesh

from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.shapes.solid import MeshSolid
from wsrl.signals.shapes.soup import NORMALISED_RADIUS
from wsrl.signals.solids.families import FAMILIES
from wsrl.signals.solids.primitives import lengths


def test_listing():
    source = open_source("solids")
    assert len(source) == 2000 and source.label_names == tuple(sorted(FAMILIES)) and len(FAMILIES) == 9
    counts = Counter(source.labels())
    assert max(counts.values()) - min(counts.values()) <= 1
    tests = [label for label, split in zip(source.labels(), source.splits(), strict=True) if split == "test"]
    assert len(tests) == 405 and set(Counter(tests).values()) == {45}
    assert source.ids[:2] == ["solids/train/00000", "solids/train/00001"] and source.ids[9] == "solids/test/00009"
    assert open_source("solids", num=40).ids == source.ids[:40]
    with pytest.raises(UserError, match=r"num is 0\. Allowed: a whole number from 1"):
        open_source("solids", num=0)


def test_seed_and_index_make_the_shape(few_points):
    first, again, other = (open_source("solids", num=20, seed=seed, **few_points) for seed in (0, 0, 1))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    one, same, third = (source.solid(13).signed_distance(points) for source in (first, again, other))
    assert np.array_equal(one, same) and not np.allclose(one, third, atol=0.01)
    assert not np.allclose(one, first.solid(4).signed_distance(points), atol=0.01), "the same family in another shape"


@pytest.fixture(scope="module")
def solids(tmp_path_factory):
    """One round of the families."""
    source = open_source("solids", num=9, cache=str(tmp_path_factory.mktemp("cache")))
    return [source.solid(position) for position in range(9)]


def test_normalised_and_watertight(solids):
    for solid in solids:
        vertices = np.asarray(solid.mesh.vertices)
        assert solid.mesh.is_watertight and solid.mesh.volume > 0 and solid.verdict == "used"
        assert lengths(vertices).max() == pytest.approx(NORMALISED_RADIUS)
        assert np.allclose(vertices.min(axis=0) + vertices.max(axis=0), 0, atol=1e-9)
        assert np.abs(solid.signed_distance(vertices)).max() < 1e-9
        assert len(solid.mesh.split(only_watertight=False)) == 1, "one piece"


def test_surface_samples(solids):
    for solid in solids:
        points, normals = solid.sample_surface(300, np.random.default_rng(0))
        assert points.shape == normals.shape == (300, 3) and np.allclose(lengths(normals), 1)
        assert np.abs(solid.signed_distance(points)).max() < 1e-6
        assert (solid.signed_distance(points + 1e-3 * normals) > 0).mean() > 0.99


def agreement(solid, mesh, num):
    """Sign agreement beyond 0.005 of the surface and mean absolute error of the distances of a mesh made a solid."""
    soup = MeshSolid(mesh)
    generator = np.random.default_rng(0)
    near, _ = solid.sample_surface(num, generator)
    spread = [scale * generator.normal(size=near.shape) for scale in (0.01, 0.05)]
    points = np.concatenate([generator.uniform(-1, 1, (num, 3)), near + spread[0], near + spread[1]])
    truth = solid.signed_distance(points)
    again = (points * solid.scale + solid.center - soup.center) / soup.scale  # the soup normalises itself
    found = soup.signed_distance(again) * soup.scale / solid.scale
    far = np.abs(truth) > 0.005
    return np.mean((truth < 0) == (found < 0), where=far), np.abs(truth - found).mean()


def in_file_units(solid, resolution, keep=1.0):
    """The mesh of a solid in units of its own, some of its faces left out."""
    mesh = solid.mesh_at(resolution)
    faces = np.asarray(mesh.faces)
    kept = np.random.default_rng(1).uniform(size=len(faces)) < keep
    return trimesh.Trimesh(np.asarray(mesh.vertices) * solid.scale + solid.center, faces[kept], process=False)


@pytest.mark.parametrize("index", [0, 5, 8])
def test_mesh_as_a_soup_against_the_truth(solids, index):
    signs, error = agreement(solids[index], in_file_units(solids[index], 64), 800)
    assert signs >= 0.999 and error <= 0.002
    signs, _ = agreement(solids[index], in_file_units(solids[index], 64, keep=0.95), 800)
    assert signs >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("position", range(36))
def test_every_family_as_a_soup_against_the_truth(position, few_points):
    solid = open_source("solids", **few_points).solid(position)
    signs, error = agreement(solid, in_file_units(solid, 128), 20_000)
    assert signs >= 0.999 and error <= 0.002
    signs, _ = agreement(solid, in_file_units(solid, 128, keep=0.95), 20_000)
    assert signs >= 0.99
