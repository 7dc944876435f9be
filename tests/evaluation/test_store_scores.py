"""Scores of stores from Python: typed options, values instead of lines, and progress for whoever asks."""

from contextlib import contextmanager

import pytest

from wsrl.errors import UserError
from wsrl.evaluation.generation import GenerationOptions
from wsrl.evaluation.generation_scores import flat_metrics, verdict
from wsrl.evaluation.sampling import SampleOptions
from wsrl.evaluation.store_probe import ProbeOptions, probe_store
from wsrl.evaluation.store_scores import ReconstructionOptions, score_store
from wsrl.evaluation.structure_scores import StructureOptions, measure_store
from wsrl.progress import Progress


class Spoken(Progress):
    """Keeps the lines that it is told."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    @contextmanager
    def __call__(self, what, total):
        yield self


def test_a_store_is_scored_in_silence(digits_store, capsys):
    metrics = score_store(digits_store, ReconstructionOptions(recompute=3))
    assert metrics["num_fields"] == 100 and metrics["recomputed.num"] == 3
    metrics = probe_store(digits_store, ProbeOptions(limit=40))
    assert metrics["num_train"] == 40 and 0 < metrics["largest_class"] < metrics["pixels_accuracy"]
    metrics = measure_store(digits_store, StructureOptions(num=5))
    assert metrics["num"] == 5 and 0 < metrics["effective_rank_low"] <= metrics["effective_rank"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "make, wrong",
    [
        (lambda: ReconstructionOptions(points=0), "points is 0. Allowed: 1 or more"),
        (lambda: ProbeOptions(folds=1), "folds is 1. Allowed: 2 or more"),
        (lambda: StructureOptions(points=2), "points is 2. Allowed: 3 or more"),
        (lambda: GenerationOptions(features_from="model"), "features_from is 'model'. Allowed: source, store"),
        (lambda: SampleOptions(model="m", out="o", size=1), "size is 1. Allowed: 2 or more"),
    ],
)
def test_options_are_checked_when_they_are_made(make, wrong):
    with pytest.raises(UserError, match=wrong):
        make()


def row(ratio, fd):
    return {"nearest_ratio": ratio, "nearest_ratio_signal": ratio, "fd": fd, "num": 4}


def test_the_verdict_names_the_baselines_that_are_not_beaten():
    rows = {"samples": row(0.5, 3.0), "noise_0": row(0.0, 0.0), "noise_1": row(1.0, 10.0)}
    rows |= {"mean_of_two": row(0.4, 1.0), "gaussian": row(0.9, 2.0)}
    spoken = Spoken()
    metrics = verdict(rows, spoken)
    assert metrics["noise_fd_at_equal_distance"] == 5.0 and metrics["num_baselines_not_beaten"] == 1
    assert len(spoken.lines) == 2 and "NOT BETTER than gaussian in fd" in spoken.lines[0]
    assert verdict(rows | {"gaussian": row(0.9, 4.0)})["num_baselines_not_beaten_signal"] == 0
    assert flat_metrics(rows)["gaussian.fd"] == 2.0 and flat_metrics(rows)["num_samples"] == 4
    assert not verdict({"samples": {"nearest_ratio": 0.5}})
