"""A folder of meshes in any format; one bad mesh stops no other."""

import json

import numpy as np
import pytest
import trimesh

from wsrl.errors import SignalError, UserError
from wsrl.signals import open_source


def put(path, mesh=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (mesh or trimesh.creation.box()).export(path)
    return path


def test_order_labels_and_splits(mesh_folder, few_points):
    source = open_source(mesh_folder, **few_points)
    expected = ["test/ball/e.glb", "test/box/d.off", "test/box/f.gltf"]
    expected += ["train/ball/c.stl", "train/box/a.obj", "train/box/b.PLY"]
    assert source.ids == expected and source.name == "meshes" and source.num_skipped == {"other_files": 2}
    assert source.labels() == ["ball", "box", "box", "ball", "box", "box"] and source.label_names == ("ball", "box")
    assert source.splits() == ["test"] * 3 + ["train"] * 3


def test_the_layout_of_modelnet(tmp_path, few_points):
    """NVIDIAGameWorks/kaolin#432: test shapes are not trained on."""
    for name in ("chair/train/a.off", "chair/test/b.off", "bed/train/c.off", "bed/test/d.off"):
        put(tmp_path / "in" / name)
    source = open_source(tmp_path / "in", **few_points)
    assert source.splits() == ["test", "train", "test", "train"]
    assert source.labels() == ["bed", "bed", "chair", "chair"]
    assert len(open_source(tmp_path / "in", split="test", **few_points)) == 2


def test_every_format_gives_its_shape(mesh_folder, few_points):
    for signal in open_source(mesh_folder, **few_points):
        radius = signal.surface.norm(dim=1)
        assert signal.verdict == "used" and (signal.values < 0).any() and radius.max() <= 0.9 + 1e-6
        if signal.label == "box":
            side = 0.9 / np.sqrt(3)
            assert np.allclose(signal.surface.abs().amax(dim=1), side, atol=1e-5), signal.id
        else:
            assert radius.min() > 0.75, signal.id


def test_bad_meshes_are_reported_alone(tmp_path, few_points):
    put(tmp_path / "in/good.obj")
    (tmp_path / "in/empty.obj").write_text("")
    (tmp_path / "in/noise.glb").write_bytes(b"glTF" + bytes(range(200)))
    (tmp_path / "in/points.ply").write_bytes(trimesh.PointCloud(np.eye(3)).export(file_type="ply"))
    (tmp_path / "in/gone.obj").symlink_to(tmp_path / "nowhere.obj")
    source = open_source(tmp_path / "in", **few_points)
    reasons = {}
    for index, id in enumerate(source.ids):
        try:
            source[index]
        except SignalError as error:
            reasons[id] = str(error)
    assert sorted(reasons) == ["empty.obj", "gone.obj", "noise.glb", "points.ply"]
    assert "link to nothing" in reasons["gone.obj"] and all(reasons.values())


def gltf(folder, uri, buffer=None):
    """A glTF file of one triangle mesh whose buffer stands under another name."""
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box()), merge_buffers=True)
    described = json.loads(files["model.gltf"])
    data = files[described["buffers"][0]["uri"]]
    described["buffers"][0]["uri"] = uri
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.gltf").write_text(json.dumps(described))
    return data


def test_buffers_of_gltf_are_part_of_it(tmp_path, few_points):
    data = gltf(tmp_path / "in", "a%20b.bin")
    (tmp_path / "in/a b.bin").write_bytes(data)
    source = open_source(tmp_path / "in", **few_points)
    before = source[0]
    assert before.values.min() < 0
    halves = np.frombuffer(data, np.uint8).copy()
    key = source.content(0).data
    halves[-1] ^= 1
    (tmp_path / "in/a b.bin").write_bytes(halves.tobytes())
    assert source.content(0).data != key, "a changed buffer is another shape"


@pytest.mark.parametrize("uri", ["../secret.bin", "link.bin", "http://localhost:1/x.bin", "none.bin"])
def test_buffers_outside_are_refused(tmp_path, few_points, uri):
    data = gltf(tmp_path / "in", uri)
    (tmp_path / "secret.bin").write_bytes(data)
    (tmp_path / "in/link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(SignalError, match=r"it refers to .*(outside|address|missing)"):
        open_source(tmp_path / "in", **few_points)[0]


def test_scene_transforms_are_applied(tmp_path, few_points):
    scene = trimesh.Scene()
    for offset in (-2.0, 2.0):
        scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([offset, 0, 0]))
    (tmp_path / "in").mkdir()
    scene.export(tmp_path / "in/two.glb")
    signal = open_source(tmp_path / "in", **few_points)[0]
    assert np.allclose(signal.center, 0) and signal.scale == pytest.approx(np.sqrt(2.5**2 + 0.5**2 + 0.5**2) / 0.9)


def test_folder_without_meshes(tmp_path):
    from wsrl.signals.sources.mesh_folder import MeshFolder, MeshFolderOptions

    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(UserError, match=r"has no meshes \(skipped: 1 other files\)\. Allowed: files ending in \.obj"):
        MeshFolder(tmp_path, MeshFolderOptions())


def test_unknown_option(mesh_folder):
    with pytest.raises(UserError, match=r"has no option size\. Allowed: .*quantity"):
        open_source(mesh_folder, size=3)
