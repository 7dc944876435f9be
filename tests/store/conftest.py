"""Stores of these tests lie in memory where possible: the writer syncs every file, which takes long on a busy disk."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 1 << 30


@pytest.fixture(scope="session")
def fast_root(tmp_path_factory):
    """A folder in memory, or an ordinary one where there is no room."""
    if not (os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES):
        yield tmp_path_factory.mktemp("stores")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="wsrl-tests-") as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(fast_root):
    """A fresh folder for one test, removed after it."""
    folder = Path(tempfile.mkdtemp(dir=fast_root))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
