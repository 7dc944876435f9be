"""What the places of files say: splits outside the classes and inside of them, under every usual name."""

import pytest

from wsrl.signals.listing import splits_and_labels


def told(*paths):
    found = splits_and_labels(paths)
    return list(zip(found.splits, found.labels))


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "valid", "TEST"), ("training", "Validation", "testing")],
)
def test_splits_stand_outside_or_inside_of_classes(train, val, test):
    """NVIDIAGameWorks/kaolin#432: ModelNet has its splits inside the classes."""
    expected = [("train", "chair"), ("val", "chair"), ("test", "chair"), ("test", "bed")]
    outside = [f"{train}/chair/a", f"{val}/chair/b", f"{test}/chair/c", f"{test}/bed/d"]
    inside = [f"chair/{train}/a", f"chair/{val}/b", f"chair/{test}/c", f"bed/{test}/d"]
    for paths in (
        outside,
        inside,
        [f"ModelNet10/{path}" for path in outside],
        [f"ModelNet10/{path}" for path in inside],
    ):
        assert told(*paths) == expected
        assert splits_and_labels(paths).notes == ()


def test_a_single_class_keeps_its_name():
    assert told("chair/train/a", "chair/test/b") == [("train", "chair"), ("test", "chair")]
    assert told("chair/a", "chair/b") == [(None, "chair"), (None, "chair")]


def test_splits_apart_from_files_without_one():
    assert told("loose", "cat/a", "bed/train/b") == [(None, None), (None, "cat"), ("train", "bed")]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["vehicles/train/a", "vehicles/bus/b"], "train"),
        (["a/x/chair/train/1", "b/x/chair/test/2"], "test, train"),
        (["train2017/a", "val2017/b"], "train2017, val2017"),
        (["train/cat/test/a"], "test"),
    ],
)
def test_what_looks_like_a_split_and_is_none_is_told(paths, names):
    """NVIDIAGameWorks/kaolin#432: nothing is trained on in silence."""
    (note,) = splits_and_labels(paths).notes
    assert note.startswith(f"folders called {names} were not used as splits: what is read is")


def test_classes_that_only_begin_like_splits_are_classes():
    assert splits_and_labels(["trains/a", "valve/b", "tester/c"]).notes == ()
