"""A folder of pictures is listed the same everywhere, and one bad picture stops no other."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wsrl.errors import SignalError, UserError
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm


def put(root, name, picture=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or Image.new("RGB", (4, 4), "red")).save(path)
    return path


def test_order_labels_and_splits(picture_folder):
    source = open_source(picture_folder)
    assert source.name == "pictures" and source.form == SignalForm(in_features=2, out_features=3, grid=(32, 32))
    expected = ["test/cat/e.tiff", "test/dog/d.bmp", "train/cat/a.JPG", "train/cat/b.png", "train/dog/c.webp"]
    assert source.ids == expected
    assert source.labels() == ["cat", "dog", "cat", "cat", "dog"] and source.label_names == ("cat", "dog")
    assert source.splits() == ["test", "test", "train", "train", "train"]


def test_order_is_by_code_point(tmp_path):
    for name in ("b.png", "A.png", "a/z.png", "a.png", "é.png", "a-b.png", "10.png", "9.png"):
        put(tmp_path, name)
    assert open_source(tmp_path).ids == ["10.png", "9.png", "A.png", "a-b.png", "a.png", "a/z.png", "b.png", "é.png"]


def test_order_does_not_depend_on_the_listing(picture_folder, monkeypatch):
    expected = open_source(picture_folder).ids
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return reversed(list(self.entries))

        def __exit__(self, *error):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Reversed)
    assert open_source(picture_folder).ids == expected


def test_classes_without_splits_and_loose_pictures(tmp_path):
    for name in ("loose.png", "cat/1.png", "cat/deep/2.png", "val/3.png", "validation/4.png"):
        put(tmp_path, name)
    source = open_source(tmp_path)
    places = dict(zip(source.ids, zip(source.splits(), source.labels())))
    assert places == {
        "cat/1.png": (None, "cat"),
        "cat/deep/2.png": (None, "cat"),
        "loose.png": (None, None),
        "val/3.png": ("val", None),
        "validation/4.png": ("val", None),
    }


def test_splits_inside_of_the_classes(tmp_path):
    """NVIDIAGameWorks/kaolin#432, for pictures."""
    for name in ("cat/Train/1.png", "cat/TEST/2.png", "dog/Train/3.png"):
        put(tmp_path, name)
    source = open_source(tmp_path)
    assert list(zip(source.splits(), source.labels())) == [("test", "cat"), ("train", "cat"), ("train", "dog")]
    assert source.notes == ()


def test_hidden_and_other_files_are_skipped_and_counted(tmp_path):
    for name in ("a.png", ".hidden.png", ".git/b.png"):
        put(tmp_path, name)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "labels.csv").write_text("labels")
    source = open_source(tmp_path)
    assert source.ids == ["a.png"]
    assert source.num_skipped == {"hidden": 2, "other_files": 2}


def test_links(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root, "a.png")
    put(outside, "b.png", Image.new("RGB", (4, 4), "blue"))
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "escape").symlink_to(outside, target_is_directory=True)
    (root / "b.png").symlink_to(outside / "b.png")
    (root / "gone.png").symlink_to(outside / "nothing.png")
    source = open_source(root)
    assert source.ids == ["a.png", "b.png", "gone.png"]
    assert source.num_skipped == {"linked_folders": 2}
    assert source[1].values[0].tolist() == [0, 0, 1]
    with pytest.raises(SignalError, match=r"gone\.png: cannot be read \(No such file"):
        source[2]
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert open_source(tmp_path / "alias").ids == source.ids


def test_one_bad_picture_stops_no_other(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "b.png").write_text("text")
    put(tmp_path, "c.png", Image.new("RGB", (1, 1)))
    whole = put(tmp_path, "d.jpg", Image.new("RGB", (64, 64), "red")).read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) // 2])
    put(tmp_path, "e.png")
    source = open_source(tmp_path, size=4)
    reasons = {}
    for index, id in enumerate(source.ids):
        try:
            source[index]
        except SignalError as error:
            reasons[id] = str(error)
    assert list(reasons) == ["b.png", "c.png", "d.jpg"]
    assert "b.png: not a picture" in reasons["b.png"]
    assert "1x1 pixels, smaller than 2 pixels a side" in reasons["c.png"]
    assert "d.jpg: " in reasons["d.jpg"] and "damaged" in reasons["d.jpg"]


def test_mode_follows_the_headers(tmp_path):
    put(tmp_path, "a.png", Image.new("L", (4, 4)))
    put(tmp_path, "b.png", Image.fromarray(np.zeros((4, 4), np.uint16)))
    (tmp_path / "c.png").write_text("text")
    colour = SignalForm(in_features=2, out_features=3, grid=(32, 32))
    assert open_source(tmp_path).form == replace(colour, out_features=1)
    assert open_source(tmp_path, mode="RGB").form == colour
    put(tmp_path, "d.png")
    assert open_source(tmp_path).form == colour
    assert open_source(tmp_path, limit=1).form == colour  # a limit does not change what a signal is


def test_mode_of_nothing_readable_is_colour(tmp_path):
    (tmp_path / "c.png").write_text("text")
    os.mkfifo(tmp_path / "pipe.png")
    assert open_source(tmp_path).form == SignalForm(in_features=2, out_features=3, grid=(32, 32))


def test_pixel_limit(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(SignalError, match=r"a\.png: too many pixels, 4x4\. Allowed: at most 15 pixels"):
        open_source(tmp_path, max_pixels=15)[0]
    with pytest.raises(UserError, match=r"max_pixels is 1\. Allowed: a whole number from 4"):
        open_source(tmp_path, max_pixels=1)


def test_nothing_is_decoded_before_it_is_asked_for(picture_folder, monkeypatch):
    source = open_source(picture_folder)
    monkeypatch.setattr(Image.Image, "load", lambda picture: pytest.fail("decoded"))
    assert len(open_source(picture_folder)) == len(source) == 5


def test_empty_folder(tmp_path):
    with pytest.raises(
        UserError, match=r"has no pictures \(it is empty\)\. Allowed: files ending in \.png .*What to do"
    ):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match=r"has no pictures \(skipped: 1 linked folders, 1 other files\)"):
        open_source(tmp_path)


def test_names_that_cannot_be_printed(tmp_path):
    put(tmp_path, "a\nb.png")
    put(tmp_path, "a\\nb.png")
    (tmp_path / "c\n.png").write_text("text")
    source = open_source(tmp_path)
    assert source.ids == ["a\\nb.png", "a\\\\nb.png", "c\\n.png"]
    with pytest.raises(SignalError, match=r"c\\n\.png: not a picture"):
        source[2]


def test_name_that_is_not_utf8(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.png"), "wb") as file:
        Image.new("RGB", (4, 4), "red").save(file, "PNG")
    source = open_source(tmp_path)
    assert source.ids == ["\\xff.png"] and source[0].values[0].tolist() == [1, 0, 0]


def test_folder_that_cannot_be_listed(picture_folder):
    (picture_folder / "train").chmod(0)
    try:
        if os.access(picture_folder / "train", os.R_OK):
            pytest.skip("this user may list everything")
        with pytest.raises(UserError, match=r"train.* cannot be listed \(Permission denied\)"):
            open_source(picture_folder)
    finally:
        (picture_folder / "train").chmod(0o755)


def test_other_files_are_told_by_their_endings(picture_folder, tmp_path, monkeypatch):
    """openvinotoolkit/anomalib#3058; facebookresearch/hydra#922: pictures are read after the working folder changed."""
    for name in ("a.txt", "train/cat/b.GIF", "train/.hidden"):
        (picture_folder / name).touch()
    monkeypatch.chdir(picture_folder.parent)
    source = open_source(picture_folder.name)
    monkeypatch.chdir("/")
    assert source.passed_over == {".GIF": 1, ".txt": 1} and len(list(source)) == 5
