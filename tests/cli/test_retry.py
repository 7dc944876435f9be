"""What failed is tried again by the same command: with other options, or when the file was mended."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsrl.cli.main import main
from wsrl.store import WeightStore
from wsrl.store.schema import read_manifest, write_manifest
from wsrl.store.verifying import verify

NETWORK = "field: {width: 4, depth: 1, omega: 30}\nsignal: {grid: [6, 6]}\n"


def save(path: Path, seed: int, dtype=torch.float32) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (4, 2), "0.bias": (4,), "1.weight": (1, 4), "1.bias": (1,)}
    torch.save({name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}, path)


@pytest.fixture
def zoo(tmp_path):
    """Six files of fields, of which one is of double precision and one is cut."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "network.yaml").write_text(NETWORK)
    for i in range(6):
        save(folder / f"f{i}.pt", i, torch.float64 if i == 2 else torch.float32)
    (folder / "f4.pt").write_bytes((folder / "f4.pt").read_bytes()[:700])
    return folder


def imported(zoo, out, *more) -> int:
    return main(["import", "--state-dicts", str(zoo), "--out", str(out), "--shards", "3", *more])


def bytes_of(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shard-*.h5"))}


def failed(out) -> list[str]:
    with WeightStore.open(out) as store:
        return [name for name, _ in store.failures]


def test_an_import_tries_again_what_its_advice_mends(zoo, tmp_path, capsys):
    """rom1504/img2dataset#452: what failed is never tried again, though the options have changed."""
    out = tmp_path / "store"
    assert imported(zoo, out) == 1 and failed(out) == ["f2", "f4"]
    before, stamps = bytes_of(out), [path.stat().st_mtime_ns for path in sorted(out.glob("shard-*.h5"))]
    assert imported(zoo, out) == 1 and bytes_of(out) == before
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("shard-*.h5"))] == stamps, "nothing new to write"
    capsys.readouterr()
    assert imported(zoo, out, "--rounding", "true") == 1 and failed(out) == ["f4"]
    assert "--rounding" not in capsys.readouterr().out, "the old reason is gone"
    assert "--rounding true" in read_manifest(out)["command"] and verify(out).ok
    assert imported(zoo, tmp_path / "fresh", "--rounding", "true") == 1
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")


def test_a_mended_file_is_imported_and_a_changed_field_is_refused(zoo, tmp_path, refused):
    """rom1504/img2dataset#452, of files: the hash of all files may change where only what failed did."""
    out = tmp_path / "store"
    assert imported(zoo, out, "--rounding", "true") == 1
    save(zoo / "f4.pt", 4)
    assert imported(zoo, out, "--rounding", "true") == 0 and failed(out) == [] and verify(out).ok
    assert imported(zoo, tmp_path / "fresh", "--rounding", "true") == 0
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")
    assert read_manifest(out)["source"] == read_manifest(tmp_path / "fresh")["source"]
    save(zoo / "f1.pt", 11)
    argv = ("import", "--state-dicts", zoo, "--out", out, "--shards", "3", "--rounding", "true")
    assert "files_sha256" in refused(*argv)
    save(zoo / "f1.pt", 1)
    assert imported(zoo, out, "--rounding", "true") == 0


def test_a_retry_that_was_killed_goes_on(zoo, tmp_path, monkeypatch):
    from wsrl.store.writer import ShardWriter

    out, finish, ended = tmp_path / "store", ShardWriter.finish, []

    def killed(self):
        if ended:
            raise KeyboardInterrupt
        ended.append(self.shard)
        finish(self)

    assert imported(zoo, out, "--rounding", "true") == 1
    save(zoo / "f4.pt", 4)
    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "finish", killed)
        assert imported(zoo, out, "--rounding", "true") == 130
    assert imported(zoo, out, "--rounding", "true") == 0 and verify(out).ok
    assert imported(zoo, tmp_path / "fresh", "--rounding", "true") == 0
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_mended_picture_is_built(build, tmp_path, interrupted, capsys):
    """rom1504/img2dataset#452, of ``wsrl build``: in finished shards and in segments of unfinished ones."""
    pictures, out = tmp_path / "pictures", tmp_path / "store"
    pictures.mkdir()
    for i in range(6):
        values = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(values).save(pictures / f"p{i}.png")
    whole = (pictures / "p3.png").read_bytes()
    (pictures / "p3.png").write_bytes(whole[:60])
    more = ("--source", "{size: [8, 8]}", "--shards", "2")
    assert build(out, *more, data=pictures) == 1 and failed(out) == ["p3.png"]
    if interrupted:  # as if the build had been killed before the second shard was put together
        (shard,) = out.glob("shard-00001-*.h5")
        (out / "segments" / "00001").mkdir(parents=True)
        shutil.move(shard, out / "segments" / "00001" / "segment-0000000003-00000000.h5")
        manifest = read_manifest(out)
        write_manifest(out, manifest | {"shards": manifest["shards"][:1], "complete": False})
    first = bytes_of(out)["shard-00000-of-00002.h5"]
    (pictures / "p3.png").write_bytes(whole)
    assert build(out, *more, data=pictures) == 0 and failed(out) == [] and verify(out).ok
    assert bytes_of(out)["shard-00000-of-00002.h5"] == first
    assert not any(b"p3.png cannot" in content for content in bytes_of(out).values())
    with WeightStore.open(out) as store:
        assert store.ids == [f"p{i}.png" for i in range(6)]
    assert "p3.png" not in (out / "README.md").read_text()


def test_a_shard_that_was_deleted_as_advised_is_made_again(build, tmp_path):
    """The message for a damaged shard says to delete it and to run the same build again."""
    out = tmp_path / "store"
    assert build(out, "--shards", "2") == 0
    before = bytes_of(out)
    (out / "shard-00001-of-00002.h5").unlink()
    assert build(out, "--shards", "2") == 0 and bytes_of(out) == before
