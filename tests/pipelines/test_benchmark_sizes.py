"""The benchmark at larger sizes as a whole, on a few small pictures, and what it refuses to compare."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import benchmark_fitting, experiment
from pipelines.benchmark_sizes import ends_of_sweeps, short_of_quality
from pipelines.timing import bfloat16_instructions
from wsrl.training import base


@pytest.mark.slow
def test_whole_measurement_on_a_few_pictures(tmp_path, monkeypatch, capsys):
    place = np.linspace(0, 1, 9)
    for number in range(6):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        shades = 0.2 + 0.1 * number * place[:, None] * place  # smooth, so that a few steps are enough
        Image.fromarray((255 * shades).astype(np.uint8)).convert("RGB").save(path)
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(base, "SMALL_STEPS", 20)  # a base field that is good enough for pictures without details
    how = {"steps": 400, "learning_rate": 0.05, "warmup": 0.0, "schedule": "hyperbolic", "target_psnr": 15.0}
    size = {"data": str(tmp_path / "pictures"), "source": {"size": 9, "mode": "RGB"}, "num_train": 4}
    size |= {"variants": {"best": how | {"interleave": 3, "interleave_by": "error"}}, "loop_rates": [1e-4, 0.05, 5.0]}
    size |= {"max_steps": 300, "num_sweep": 1, "num": 1, "steps_at_peak": 2, "num_at_peak": 2}
    argv = ["--name", "sizes", "--out", str(tmp_path / "out"), "--repetitions", "1"]
    argv += ["--data", str(tmp_path / "pictures"), "--sizes", json.dumps({"size9": size})]
    experiment.main(benchmark_fitting.run, benchmark_fitting.incomparable, argv=argv)
    record = json.loads((tmp_path / "records" / "benchmark_fitting" / "sizes.json").read_text())
    assert record["size9.ratio_loop"] == record["size9.loop.ms_per_field"] / record["size9.best.ms_per_field"] > 0
    assert record["size9.reached"] == 1 and 0 < record["size9.fraction_of_peak"] < 1
    assert record["size9.share_within_reach"] >= 0.5 and record["processor.amx_bf16"] in (0.0, 1.0)


def test_a_best_rate_at_an_end_of_the_sweep_is_told():
    steps = {"s.loop.steps_at_rate_0.02": 9.0, "s.loop.steps_at_rate_0.04": 5.0, "s.loop.steps_at_rate_0.08": 7.0}
    assert not ends_of_sweeps(steps | {"s.loop.rate": 0.04})
    (problem,) = ends_of_sweeps(steps | {"s.loop.rate": 0.08})
    assert problem == "NOT COMPARABLE: s.loop: its best rate 0.08 lies at an end of [0.02, 0.04, 0.08]"


def test_fields_short_of_the_quality_are_told():
    assert not short_of_quality({"s.reached": 1.0, "s.plain.reached": 0.5})
    assert short_of_quality({"s.reached": 0.5}) == ["NOT COMPARABLE: s: some fields do not reach the quality"]


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx512f", (0, 0)), ("avx512_bf16 fpu amx_bf16", (1, 1))])
def test_instructions_are_those_that_the_system_names(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : none\n")
    found = bfloat16_instructions(tmp_path / "cpuinfo")
    assert (found["processor.avx512_bf16"], found["processor.amx_bf16"]) == expected
    assert set(bfloat16_instructions(tmp_path / "nothing").values()) == {0.0}
