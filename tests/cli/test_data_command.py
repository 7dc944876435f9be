"""``wsrl data`` lists the sources, prepares folders that read back as what they came from, and prepares shapes."""

import csv

import numpy as np
import pytest

from wsrl.cli.data import main
from wsrl.errors import UserError
from wsrl.signals import open_source


def test_list(capsys):
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("digits", "fashion-mnist", "noto-emoji", "furniture", "solids"))


def test_prepared_folder_reads_back(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prepare", "digits", "--out", str(out), "--limit", "5"]) == 0
    source, back = open_source("digits", limit=5), open_source(out, size=8)
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == source.ids and {row["file"] for row in rows} == set(back.ids)
    for index, row in enumerate(rows):
        again = back[back.ids.index(row["file"])]
        assert (again.label, again.split) == (row["label"], row["split"]) == (source[index].label, source[index].split)
        assert np.allclose(again.values, source[index].values, atol=0.5 / 255 + 1e-6)
    assert "10 pictures of digits" in capsys.readouterr().out


def test_again_continues(tmp_path):
    argv = ["prepare", "digits", "--out", str(tmp_path), "--limit", "3"]
    assert main(argv) == 0
    pictures = sorted(tmp_path.rglob("*.png"))
    kept, lost = pictures[0], pictures[1]
    content, modified = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert main(argv) == 0
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == modified
    assert not list(tmp_path.rglob("*.tmp"))


def test_default_folder_beside_its_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/digits").mkdir(parents=True)
    (tmp_path / "data/digits/README.md").write_text("about")
    assert main(["prepare", "digits", "--limit", "1"]) == 0
    assert len(list((tmp_path / "data/digits").rglob("*.png"))) == 2


def test_folders_that_are_not_ours(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"not empty and was not made by this command \(it has thesis\.tex\)"):
        main(["prepare", "digits", "--out", str(tmp_path), "--limit", "1"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match=r"thesis\.tex is not a folder"):
        main(["prepare", "digits", "--out", str(tmp_path / "thesis.tex"), "--limit", "1"])
    main(["prepare", "digits", "--out", str(tmp_path / "a"), "--limit", "1"])
    with pytest.raises(UserError, match="prepared from another source or with other options"):
        main(["prepare", "digits", "--out", str(tmp_path / "a"), "--limit", "2"])


def test_bad_pictures_are_listed(tmp_path, capsys):
    images = np.zeros((3, 4, 4), np.float32)
    images[1] = np.nan
    np.save(tmp_path / "few.npy", images)
    assert main(["prepare", str(tmp_path / "few.npy"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "few/00001: " in told.err and "NaN" in told.err and "1 of 3 pictures could not be used" in told.err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_same_names_do_not_collide(tmp_path):
    from PIL import Image

    for name in ("cat/x/1.png", "cat/y/1.png", "cat/y/1.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "in" / name)
    assert main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out/cat").glob("*.png"))) == 3


@pytest.fixture
def meshes(tmp_path):
    """Two cubes, of which one is open, and a file that is no mesh."""
    import trimesh

    for name in ("train/box/a.obj", "train/box/b.obj"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        mesh = trimesh.creation.box()
        if name.endswith("b.obj"):
            mesh.update_faces(list(range(10)))
        mesh.export(tmp_path / "in" / name)
    (tmp_path / "in/train/box/c.obj").write_text("nothing here\n")
    return tmp_path / "in"


def test_shapes_are_prepared_and_told(meshes, tmp_path, capsys):
    few = f"{{num_near: 50, num_uniform: 50, num_surface: 50, num_heldout: 50, cache: {tmp_path / 'cache'}}}"
    argv = ["prepare", str(meshes), "--out", str(tmp_path / "out"), "--source", few, "--processes", "1"]
    assert main(argv) == 1
    told = capsys.readouterr()
    assert "3 shapes of in in " in told.out and "1 used, 1 repaired, 1 rejected" in told.out
    assert "s a shape (median)" in told.out
    assert "left out train/box/c.obj: " in told.err and "1 of 3 shapes could not be used" in told.err
    with (tmp_path / "out/index.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [row["verdict"] for row in rows.values()] == ["used", "repaired", "rejected"]
    assert rows["train/box/b.obj"]["reasons"] and float(rows["train/box/a.obj"]["seconds"]) > 0
    assert rows["train/box/a.obj"]["label"] == "box" and rows["train/box/a.obj"]["split"] == "train"
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.h5")}
    assert len(cached) == 3 and main(argv) == 1
    assert cached == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.h5")}


def test_wrong_options_of_shapes(meshes, tmp_path):
    argv = ["prepare", str(meshes), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"has no option mode\. Allowed: limit, split, quantity"):
        main([*argv, "--mode", "RGB"])
    with pytest.raises(UserError, match=r'"source".*Got value: three\. Allowed: '):
        main([*argv, "--source", "three"])
    with pytest.raises(UserError, match=r"--processes is 0\. Allowed: a whole number from 1"):
        main([*argv, "--processes", "0"])


def test_what_the_user_should_know_of_a_source_is_said(tmp_path, capsys):
    """gpeyre/numerical-tours#31: a range that is guessed is told, once."""
    np.save(tmp_path / "wide.npy", np.arange(256).reshape(4, 8, 8))
    assert main(["prepare", str(tmp_path / "wide.npy"), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.count("wide: int64 with values up to 255, read as 0 to 255") == 1
