"""``build_store`` from Python: what it returns, how it goes on, and where it computes."""

import pytest
import torch

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.build import Compute, build_store
from wsrl.fitting.devices import choose_device, worker_devices, worker_threads
from wsrl.fitting.engine import FitConfig
from wsrl.signals import open_source

PLAN = (RepresentationConfig(kind="mlora", rank=1), FitConfig(steps=2, batch_size=8))


@pytest.fixture(scope="module")
def source():
    return open_source("digits", limit=6)


@pytest.fixture(scope="module")
def base():
    return BaseField(BaseFieldConfig(field=FieldConfig(width=8, depth=2, num_frequencies=4), latent_size=4), 2, 1)


def test_a_base_field_and_its_folder_give_the_same_store(source, base, tmp_path):
    base.save_pretrained(tmp_path / "base")
    one = build_store(source, *PLAN, base=base, out=tmp_path / "one")
    two = build_store(source, *PLAN, base=tmp_path / "base", out=tmp_path / "two")
    assert len(one) == len(two) == 12 and one.ids == source.ids and not one.failures
    assert all(torch.equal(tensor, two[id][name]) for id in one.ids for name, tensor in one[id].items())
    again = build_store(source, *PLAN, base=base, out=tmp_path / "one")
    assert again.manifest == one.manifest


def test_shards_one_by_one(source, base, tmp_path):
    first = build_store(source, *PLAN, base=base, out=tmp_path / "store", shard=(1, 2))
    assert len(first) == 6 and not first.manifest["complete"]
    whole = build_store(source, *PLAN, base=base, out=tmp_path / "store")
    assert len(whole) == 12 and whole.manifest["complete"] and whole.manifest["num_shards"] == 2
    with pytest.raises(UserError, match="the same number of shards"):
        build_store(source, *PLAN, base=base, out=tmp_path / "store", shard=(0, 3), num_shards=2)


def test_progress_is_said_and_shown(source, base, tmp_path):
    from contextlib import contextmanager

    from wsrl.progress import Progress

    lines = []

    class RecordedProgress(Progress):
        def advance(self, number, note=""):
            lines.append(number)

        def say(self, text):
            lines.append(text)

    @contextmanager
    def progress(what, total):
        lines.append((what, total))
        yield RecordedProgress()

    build_store(source, *PLAN, base=base, out=tmp_path / "store", progress=progress)
    assert "parameters a field, 12 signals, 1 shard(s)" in lines[1] and ("shard 0", 12) in lines
    assert sum(part for part in lines if isinstance(part, int)) == 12


def test_adapters_need_a_base_field(source, tmp_path):
    with pytest.raises(UserError, match="adapts a base field and none was given"):
        build_store(source, out=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_devices_of_the_workers():
    assert worker_devices("cpu", None) == ["cpu"] and worker_devices("cpu", 3) == ["cpu"] * 3
    devices = worker_devices("auto", None)
    assert devices == ([f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"])
    assert worker_threads(3, 2) == 3 and worker_threads(None, 10_000) == 1
    with pytest.raises(UserError, match="--workers is 0"):
        worker_devices("cpu", 0)
    with pytest.raises(UserError, match="--threads is 0"):
        worker_threads(0, 1)
    with pytest.raises(UserError, match="no device 'meta'"):
        choose_device("meta")


def test_all_visible_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # no GPU is here to count
    assert worker_devices("auto", None) == ["cuda:0", "cuda:1"]
    assert worker_devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]


def test_engines():
    with pytest.raises(UserError, match="local, ray"):
        Compute(engine="slurm")
    with pytest.raises(UserError, match="workers of its own"):
        Compute(engine="ray", workers=2)
