"""Files and folders appear whole or not at all, and nothing else in the house renames."""

import errno
import re
from pathlib import Path

import pytest
from safetensors import SafetensorError

from wsrl.durable import file_sha256, text_number, text_sha256, whole, write_bytes
from wsrl.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def test_a_folder_takes_the_place_of_the_one_that_was_there(tmp_path):
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with whole(folder) as temporary:
            (temporary / "part").mkdir(parents=True)
            (temporary / "part" / "file").write_text(text)
    assert (folder / "part" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_fails_leaves_what_was_there(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_goes_where_nobody_else_writes(tmp_path):
    (tmp_path / ".model.1.tmp").mkdir()
    with whole(tmp_path / "model", alone=True) as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_that_a_library_met_is_told(tmp_path):
    error = SafetensorError(f"I/O error: No space left on device (os error {errno.ENOSPC})")
    told = r"model: the disk is full.*run the same command again"
    with pytest.raises(UserError, match=told), whole(tmp_path / "model"):
        raise error


def test_hashes(tmp_path):
    (tmp_path / "one").write_bytes(b"a\nb")
    assert file_sha256(tmp_path / "one") == text_sha256("a", "b") == text_sha256("a\nb")
    assert text_number("a") == int(text_sha256("a")[:16], 16)


def test_nothing_else_renames():
    renames = re.compile(r"os\.(replace|rename)\(|\.rename\(|shutil\.move|flock\(|os\.fsync")
    files = [path for path in (ROOT / "wsrl").rglob("*.py") if renames.search(path.read_text())]
    assert [path.name for path in files] == ["durable.py"]
