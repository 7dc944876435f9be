"""Summaries of recorded metrics, and fields evaluated anew."""

import numpy as np

from wsrl.evaluation.reconstruction import recorded, summarise
from wsrl.store import WeightStore


def test_summary_has_dotted_keys_and_leaves_out_what_is_missing():
    summary = summarise("psnr", np.array([30.0, 40.0, np.nan]))
    assert summary["psnr_mean"] == 35.0 and summary["psnr_min"] == 30.0 and summary["psnr_median"] == 35.0
    assert summarise("psnr", np.array([np.nan])) == {}


def test_recorded_metrics_are_those_of_the_store(tmp_path, make_store):
    store = WeightStore.open(make_store(tmp_path / "store"))
    found = recorded(store)
    assert found["num_fields"] == 60 and found["num_failures"] == 0
    assert found["psnr_mean"] == store.metrics("psnr").mean()
    assert found["test.psnr_mean"] == store.metrics("psnr")[store.splits() == "test"].mean()
