"""Caches of users without a home, and what of a shared folder is believed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wsrl import caches

ROOT_ONLY = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may change its user id"
)
UNKNOWN = 54321
FOLDERS = ("HOME", "WSRL_CACHE", "XDG_CACHE_HOME")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, and no environment."""
    for name in FOLDERS[1:]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    caches._fresh.cache_clear()
    yield tmp_path / "tmp"
    caches._fresh.cache_clear()


def test_the_usual_places(temporary, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert caches.data_cache("shapes") == tmp_path / "home/.cache/wsrl/shapes"
    assert caches.code_cache("kernels") == tmp_path / "home/.cache/wsrl/kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.code_cache("kernels") == tmp_path / "xdg/wsrl/kernels"
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path / "mine"))
    assert caches.data_cache("shapes") == tmp_path / "mine/shapes"


@pytest.mark.parametrize("home", [None, "a file", "read only"])
def test_without_a_home_a_private_temporary_folder_is_used(temporary, monkeypatch, tmp_path, home):
    """containers/crun#599: an id without an entry has no home; others have one that cannot be written to."""
    if home is None:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif home == "a file":
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
        (tmp_path / "file").write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
    own = temporary / f"wsrl-{os.geteuid()}"
    assert caches.data_cache("shapes") == own / "shapes"
    assert caches.code_cache("kernels") == own / "kernels"
    assert own.stat().st_mode & 0o777 == (own / "kernels").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert caches.data_cache("shapes") == own / "shapes"


@pytest.mark.parametrize("planted", ["open", "link", "file"])
def test_what_others_may_have_put_there_is_not_run(temporary, monkeypatch, tmp_path, planted):
    """containers/crun#599, its hazard: the folder for temporary files is everybody's."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    own = temporary / f"wsrl-{os.geteuid()}"
    if planted == "open":
        own.mkdir()
        own.chmod(0o777)
    elif planted == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        own.symlink_to(tmp_path / "theirs")
    else:
        own.write_text("")
    used = caches.code_cache("kernels")
    assert not used.is_relative_to(own) and used.stat().st_mode & 0o777 == 0o700
    assert caches.code_cache("kernels") == used  # one folder a process


def test_files_of_others_are_not_ours(tmp_path):
    mine = tmp_path / "a.so"
    mine.write_bytes(b"")
    mine.chmod(0o700)
    assert caches.is_ours_alone(mine)
    mine.chmod(0o770)
    assert not caches.is_ours_alone(mine)
    assert not caches.is_ours_alone(tmp_path / "none")
    if os.geteuid() == 0:
        mine.chmod(0o700)
        os.chown(mine, UNKNOWN, UNKNOWN)
        assert not caches.is_ours_alone(mine)


@ROOT_ONLY
def test_an_id_without_an_entry_has_its_caches():
    """containers/crun#599, truenas/apps#5272: the kernel and the shapes of such a user."""
    tmp_path = Path(tempfile.mkdtemp())  # that of pytest is this user's alone
    tmp_path.chmod(0o777)
    code = "import os; from wsrl import caches; from wsrl.signals.shapes.shape import default_cache; "
    code += f"os.setgroups([]); os.setgid({UNKNOWN}); os.setuid({UNKNOWN}); "
    code += "print(default_cache(), caches.code_cache('kernels'))"
    environment = {name: value for name, value in os.environ.items() if name not in FOLDERS} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    shutil.rmtree(tmp_path)
    assert done.stdout.split() == [f"{tmp_path}/wsrl-{UNKNOWN}/{name}" for name in ("shapes", "kernels")], done.stderr
