"""Names and paths open the source they mean, and anything else is explained."""

import numpy as np
import pytest

from wsrl.errors import UserError
from wsrl.signals import open_source, source_names


def test_names_have_one_line_each():
    names = source_names()
    assert list(names) == ["digits", "fashion-mnist", "noto-emoji", "furniture", "solids"]
    assert all(line and "\n" not in line for line in names.values())


def test_a_name_goes_before_a_folder(tmp_path, monkeypatch, picture_folder):
    monkeypatch.chdir(tmp_path)
    picture_folder.rename(tmp_path / "digits")
    assert len(open_source("digits")) == 1797
    assert len(open_source("./digits")) == 5 and open_source("./digits").name == "digits"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("fashion_mnist", r"called 'fashion_mnist'\. Allowed: digits, .*\. What to do: did you mean fashion-mnist\?"),
        ("nowhere/at/all", "there is no source and no folder called 'nowhere/at/all'.*check the spelling, or the path"),
    ],
)
def test_unknown_data(data, message):
    with pytest.raises(UserError, match=message):
        open_source(data)


def test_a_single_picture_is_no_source(picture_folder):
    with pytest.raises(UserError, match=r"b\.png is a single file of another kind.*give the folder it is in"):
        open_source(picture_folder / "train/cat/b.png")


def test_a_path_object_or_text(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 2), np.uint8))
    assert open_source(tmp_path / "a.npy").ids == open_source(str(tmp_path / "a.npy")).ids == ["a/00000"]
