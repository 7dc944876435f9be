"""The experiment on sizes as a whole, on a few pictures of a folder."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import experiment, photographs, resolution


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.mark.slow
def test_whole_experiment_on_a_few_pictures(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    row = {"data": str(pictures), "size": 9, "num_train": 4, "num_fields": 2}
    argv = ["--name", "resolution", "--out", str(tmp_path / "out"), "--num_between", "1"]
    argv += ["--rows", json.dumps({"own.9": row}), "--traded", json.dumps(["own.9"])]
    assert experiment.main(resolution.run, argv=argv) == 0
    record = json.loads((tmp_path / "records" / "representations" / "resolution.json").read_text())
    assert record["own.9.num_fields"] == 2 and record["own.9.width"] == 32 and record["own.9.psnr_between"] > 0
    counts = [record[f"own.9.{key}"] for key in ("half_rank.numbers", "numbers", "twice_rank.numbers")]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.skipif(not photographs.FOLDER.is_dir(), reason=f"Debian's {photographs.PACKAGE} is not installed")
def test_patches_of_photographs_keep_the_splits_apart(tmp_path):
    out = photographs.cut_patches(tmp_path / "patches", 16, {"train": 20, "test": 7})
    parts = {split: sorted(path.parent.name for path in (out / split).rglob("*.png")) for split in ("train", "test")}
    assert (len(parts["train"]), len(parts["test"])) == (20, 7)
    assert set(parts["test"]) == set(photographs.HELD_OUT) and not set(parts["test"]) & set(parts["train"])
    again = photographs.cut_patches(tmp_path / "again", 16, {"train": 20, "test": 7})
    for path in out.rglob("*.png"):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()
        with Image.open(path) as patch:
            assert patch.size == (16, 16) and patch.mode == "RGB"
