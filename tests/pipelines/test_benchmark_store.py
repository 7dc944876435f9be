"""The benchmark of the store measures what it says: every field read, real builds, figures that belong together."""

import math

import pytest
import torch

from pipelines.benchmark_store import LinearConfig, ReadingConfig, measure_linear, measure_reading, write_folder
from wsrl.store import WeightStore

SMALL = ReadingConfig(num_fields=300, fields_per_shard=120, num_files=20, batch_size=32, repetitions=1, threads=1)


def test_reading_is_measured_on_a_store_and_a_folder_of_the_same_fields(tmp_path):
    figures = measure_reading(SMALL, tmp_path)
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    ratio = figures["reading.rows_per_s"] / figures["reading.folder_rows_per_s"]
    assert figures["reading.ratio_folder"] == pytest.approx(ratio)
    with WeightStore.open(tmp_path / "store") as store:
        assert len(store) == 300 and store.layout.num_weights == 1536 and len(store.manifest["shards"]) == 3
        for row, path in enumerate(sorted((tmp_path / "folder").iterdir())):
            field = torch.load(path, weights_only=True)
            assert all(torch.equal(field[name], tensor) for name, tensor in store[row].items())
    assert row == 19
    write_folder(SMALL, tmp_path / "store", tmp_path / "folder")
    assert len(list((tmp_path / "folder").iterdir())) == 20, "what is there is used again"


@pytest.mark.slow
def test_builds_are_measured(tmp_path):
    figures = measure_linear(LinearConfig(tiny=8, small=300, large=900, repetitions=1), tmp_path)
    assert {"linear.time_ratio", "linear.memory_ratio", "linear.seconds_per_field_300", "linear.peak_mb_900"} <= set(
        figures
    )
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "the stores are removed"


@pytest.mark.slow
def test_a_build_that_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="unknown"):
        measure_linear(LinearConfig(options=("--representation", "unknown")), tmp_path)
