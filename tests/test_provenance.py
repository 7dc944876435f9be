"""What a run leaves about itself."""

import json
import os
import stat

import numpy as np
import pytest
import torch

from wsrl.provenance import finish_run, hash_input, write_json_atomic, write_run


def test_a_run_is_recorded_before_and_completed_after(tmp_path):
    source = tmp_path / "input.txt"
    source.write_text("pixels")
    write_run(tmp_path / "run", "wsrl build x", {"rank": 4}, inputs={"data": source, "named": "digits"}, seed=3)
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    assert before["elapsed_s"] is None and before["config"] == {"rank": 4} and before["seed"] == 3
    assert before["versions"]["torch"] == torch.__version__
    assert before["machine"]["cores"] >= 1
    assert len(before["inputs"]["data"]["sha256"]) == 64 and before["inputs"]["named"]["sha256"] is None
    finish_run(tmp_path / "run", psnr=31.5)
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert after["elapsed_s"] >= 0 and after["results"] == {"psnr": 31.5}


def test_hash_changes_with_content_and_not_with_path(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("one")
    (tmp_path / "c").write_text("two")
    assert hash_input(tmp_path / "a") == hash_input(tmp_path / "b") != hash_input(tmp_path / "c")


def test_store_folder_is_hashed_by_its_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    first = hash_input(tmp_path)
    (tmp_path / "later.txt").write_text("note")
    assert hash_input(tmp_path) == first
    (tmp_path / "manifest.json").write_text('{"a": 1}')
    assert hash_input(tmp_path) != first


def test_numbers_of_numpy_and_torch_become_plain(tmp_path):
    write_json_atomic(tmp_path / "x.json", {"a": np.float32(0.5), "b": torch.tensor([1, 2]), "c": tmp_path, "d": {3}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 0.5, "b": [1, 2], "c": str(tmp_path), "d": [3]}


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    write_json_atomic(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError, match="is not plain data"):
        write_json_atomic(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_the_file_may_be_read_by_others(tmp_path):
    write_json_atomic(tmp_path / "x.json", {})
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
