"""NumPy files: types, shapes, bad rows and bad files."""

import numpy as np
import pytest

from wsrl.errors import SignalError, UserError
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm


def saved(tmp_path, array, name="a.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int64])
def test_integers_are_scaled_by_the_largest_of_their_type(tmp_path, dtype):
    top = np.iinfo(dtype).max
    array = np.array([[[0, top], [top // 3, top // 5]]], dtype)
    values = open_source(saved(tmp_path, array))[0].values[:, 0].numpy()
    assert np.allclose(values, [0, 1, 1 / 3, 1 / 5], atol=5e-3 if top < 256 else 1e-4)
    assert values[1] == 1


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">u2", ">i4"])
@pytest.mark.parametrize("largest", [255, 200])
def test_eight_bits_in_a_wider_type_are_told(tmp_path, dtype, largest):
    """gpeyre/numerical-tours#31: NumPy's default integers are not black, whether the file is mapped or packed."""
    array = np.array([[[0, largest], [51, 102]], [[0, 0], [0, 1]]]).astype(dtype)
    np.savez(tmp_path / "b.npz", images=array)
    for path in (saved(tmp_path, array), tmp_path / "b.npz"):
        source = open_source(path)
        assert np.allclose(source[0].values[:, 0], [0, largest / 255, 0.2, 0.4])
        assert np.allclose(source[1].values[:, 0], [0, 0, 0, 1 / 255])
        assert f"with values up to {largest}, read as 0 to 255" in source.notes[0]


@pytest.mark.parametrize(
    ("dtype", "largest", "white"),
    [
        (np.uint16, 4095, 4095),
        (np.uint16, 1000, 1023),
        (np.int16, 4095, 4095),
        (np.int64, 65535, 65535),
        (np.int64, 1, 1),
        (np.int32, 16, 16),
        (np.uint8, 1, 1),
        (np.uint8, 16, 16),
        (np.int64, 100, 100),
    ],
)
def test_a_range_that_is_not_known_is_refused_until_it_is_given(tmp_path, dtype, largest, white):
    """gpeyre/numerical-tours#31, for 10 and 12 bits, masks and shares of a hundred."""
    path = saved(tmp_path, np.array([[[0, largest], [0, 0]]], dtype))
    with pytest.raises(UserError, match=rf"that end at {largest}, of .*their range is not known.*white: {white}\}}"):
        open_source(path)
    source = open_source(path, white=white)
    assert source[0].values.max() == pytest.approx(largest / white)
    assert source.description["options"]["white"] == white and source.notes == ()


def test_white_of_reals_and_values_above_it(tmp_path):
    path = saved(tmp_path, np.array([[[0.0, 255.0], [51.0, 0.0]]]))
    with pytest.raises(SignalError, match=r"values from 0 to 255 .*white: 255"):
        open_source(path)[0]
    assert open_source(path, white=255)[0].values[:, 0].tolist() == pytest.approx([0, 1, 0.2, 0])
    with pytest.raises(SignalError, match=r"values from 0 to 255 .*here up to 100"):
        open_source(path, white=100)[0]
    with pytest.raises(UserError, match=r"white is 0\. Allowed: a number above 0"):
        open_source(path, white=0)


def test_black_pictures_stay_black_and_negative_ones_are_refused(tmp_path):
    source = open_source(saved(tmp_path, np.zeros((2, 2, 2), np.int64)))
    assert source[1].values.max() == 0 and source.notes == () and "white" not in source.description["options"]
    source = open_source(saved(tmp_path, np.array([[[0, 255], [0, 0]], [[-3, 255], [0, 0]]])))
    with pytest.raises(SignalError, match="row 1: values from -3 to 255"):
        source[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool])
def test_reals_stay(tmp_path, dtype):
    array = np.array([[[0, 1], [1, 0]]], dtype)
    assert open_source(saved(tmp_path, array))[0].values[:, 0].tolist() == [0, 1, 1, 0]


def test_channels(tmp_path):
    array = np.zeros((1, 2, 2, 4), np.uint8)
    array[0, 0, 0] = (255, 0, 0, 255)
    source = open_source(saved(tmp_path, array))
    assert source.form == SignalForm(in_features=2, out_features=3, grid=(2, 2))
    assert source[0].values.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert open_source(saved(tmp_path, array[..., :1])).form == SignalForm(in_features=2, out_features=1, grid=(2, 2))


def test_npz_with_labels_and_splits(tmp_path):
    images = np.zeros((3, 2, 2), np.uint8)
    np.savez(tmp_path / "b.npz", pictures=images, labels=[2, 0, 2], splits=["train", "train", "test"])
    source = open_source(tmp_path / "b.npz")
    assert source.labels() == ["2", "0", "2"] and source.label_names == ("0", "2")
    assert source.splits() == ["train", "train", "test"] and source.ids == ["b/00000", "b/00001", "b/00002"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite(tmp_path, value):
    array = np.zeros((3, 2, 2), np.float32)
    array[1, 0, 1] = value
    source = open_source(saved(tmp_path, array))
    assert source[0].values.max() == source[2].values.max() == 0
    with pytest.raises(SignalError, match=r"a\.npy, row 1: NaN or infinite values"):
        source[1]


@pytest.mark.parametrize("array", [np.full((1, 2, 2), 255.0), np.full((1, 2, 2), -1, np.int8)])
def test_a_row_out_of_range(tmp_path, array):
    with pytest.raises(SignalError, match=r"row 0: values from .*Allowed: floating-point values within \[0, 1\]"):
        open_source(saved(tmp_path, array))[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)\. Allowed: \(N, H, W\) or \(N, H, W, C\)"),
        (np.zeros((0, 4, 4), np.uint8), r"shape \(0, 4, 4\)"),
        (np.zeros((2, 1, 4), np.uint8), r"shape \(2, 1, 4\)"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"shape \(2, 4, 4, 2\)"),
        (np.zeros((2, 4, 4), np.complex64), "type complex64"),
        (np.array([[["a", "b"], ["c", "d"]]]), "type <U1"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        open_source(saved(tmp_path, array))


def test_files_that_cannot_be_read(tmp_path):
    path = saved(tmp_path, np.zeros((3, 4, 4), np.float32))
    whole = path.read_bytes()
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name, content in (("cut.npy", whole[:-10]), ("text.npy", b"text"), ("empty.npy", b""), ("text.npz", b"text")):
        (tmp_path / name).write_bytes(content)
    for name in ("objects.npy", "cut.npy", "text.npy", "empty.npy", "text.npz"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as NumPy arrays .*save it again"):
            open_source(tmp_path / name)


def test_npz_that_does_not_say(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((1, 2, 2)), b=np.zeros((1, 2, 2)))
    with pytest.raises(UserError, match=r"two\.npz holds a, b\. Allowed: one array called images"):
        open_source(tmp_path / "two.npz")


def test_labels_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "c.npz", images=np.zeros((3, 2, 2)), labels=[1, 2])
    with pytest.raises(UserError, match=r"labels of shape \(2,\) and type .*Allowed: 3 integers or texts"):
        open_source(tmp_path / "c.npz")
