"""Fields go out and come back by functions of the library alone."""

from contextlib import contextmanager

import pytest
import torch

from wsrl.errors import UserError
from wsrl.exchange.export_fields import ExportOptions, choose_rows, export_fields
from wsrl.exchange.import_store import import_store
from wsrl.exchange.importing import ImportOptions, plan_import
from wsrl.progress import Progress
from wsrl.store import WeightStore
from wsrl.store.verifying import verify


@pytest.mark.parametrize("format, kind", [("safetensors", "state_dicts"), ("numpy", "numpy")])
def test_what_is_exported_comes_back(digits_store, tmp_path, format, kind):
    shown = []

    @contextmanager
    def progress(what, total):
        shown.append((what, total))
        yield Progress()

    with WeightStore.open(digits_store) as store:
        rows = choose_rows(store, num=5)
        assert export_fields(store, tmp_path / "files", rows, ExportOptions(format=format), progress=progress) == []
        plan = plan_import(kind, tmp_path / "files")
        with import_store(plan, tmp_path / "again", num_shards=2, progress=progress) as again:
            assert again.ids == [store.ids[row] for row in rows] and not again.failures
            for row in rows:
                assert all(torch.equal(again[row][name], tensor) for name, tensor in store[row].items())
    assert verify(tmp_path / "again").ok and plan.summary().startswith("5 fields of kind mlp, ")
    assert shown == [("export", 5), ("hash", 5), ("import", 5)]


def test_options_are_checked_when_they_are_made(tmp_path):
    with pytest.raises(UserError, match=r"format is 'jpeg'.*Allowed: images, meshes"):
        ExportOptions(format="jpeg")
    with pytest.raises(UserError, match=r"--unmatched is 'maybe'.*Allowed: refuse, ignore"):
        ImportOptions(unmatched="maybe")
    with pytest.raises(UserError, match=r"kind is 'zip'.*Allowed: state_dicts, peft, numpy"):
        plan_import("zip", tmp_path)
