"""Parts of an experiment: what an earlier run made keeps its commit and its seconds, and a record sums them."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from pipelines import experiment
from pipelines.experiment import Experiment, Parts, main
from wsrl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TinyConfig(Experiment):
    """An experiment of one part.

    Attributes:
        value: What it finds.
    """

    value: float = 1.0


def run(config: TinyConfig) -> dict[str, float]:
    """Find the value, once."""
    if config.value < 0:
        raise UserError(f"value is {config.value}", allowed="0 or more", do="choose another value")
    path = Path(config.out) / "value.json"
    return config.kept("value", path, lambda: {"found": config.value}, how=[config.value])


@pytest.fixture
def tiny(tmp_path, monkeypatch, capsys):
    """Runs the experiment above as a command does, from the code of a given commit; returns its record."""
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")

    def record(commit: str, value: float = 1.0) -> dict:
        monkeypatch.setattr(experiment, "code_state", lambda: {"commit": commit, "dirty": False})
        assert main(run, argv=["--name", "tiny", "--out", str(tmp_path / "out"), f"--value={value}"]) == 0
        return json.loads((tmp_path / "records" / "test_experiment" / "tiny.json").read_text())

    return record


def test_a_part_that_is_kept_keeps_its_commit(tiny, tmp_path):
    first = tiny("one")
    assert first["found"] == 1.0 and first["run.parts.value.commit"] == first["run.commit"] == "one"
    noted = tmp_path / "out" / "tiny.parts.json"
    parts = json.loads(noted.read_text())
    parts["value"]["elapsed_s"] = 100.0
    noted.write_text(json.dumps(parts))
    again = tiny("two")
    assert again["run.commit"] == again["run.parts.rest.commit"] == "two"
    assert again["run.parts.value.commit"] == "one" and again["run.parts.value.elapsed_s"] == 100.0
    assert again["run.elapsed_s"] == pytest.approx(100.0 + again["run.parts.rest.elapsed_s"], abs=0.1)
    assert tiny("three", value=2.0)["run.parts.value.commit"] == "three", "found anew with other options"


@dataclass(frozen=True, kw_only=True)
class SharedConfig(Experiment):
    """An experiment with others in its record.

    Attributes:
        value: What it finds.
    """

    record: ClassVar[str] = "several/shared"
    value: float = 1.0


def run_shared(config: SharedConfig) -> dict[str, float]:
    """Find the value."""
    return {"found": config.value}


def test_experiments_that_share_a_record_keep_each_others_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RECORDS", tmp_path / "records")
    for name, value in (("one", 1.0), ("two", 2.0), ("one", 3.0)):
        assert main(run_shared, argv=["--name", name, "--out", str(tmp_path / name), f"--value={value}"]) == 0
    record = json.loads((tmp_path / "records" / "several" / "shared.json").read_text())
    assert (record["one.found"], record["two.found"]) == (3.0, 2.0)
    assert {key.split(".")[0] for key in record} == {"one", "two"} and "two.run.commit" in record


def test_seconds_of_parts_inside_and_of_interrupted_runs(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: now[0]))
    parts = Parts(tmp_path / "parts.json")
    with parts.timed("outer", there=False):
        now[0] += 2
        with parts.timed("inner", there=False):
            now[0] += 3
    assert parts.entries()["run.parts.inner.elapsed_s"] == 3 and parts.entries()["run.parts.outer.elapsed_s"] == 2
    with pytest.raises(KeyboardInterrupt), parts.timed("long", there=False):
        now[0] += 5
        raise KeyboardInterrupt
    again = Parts(tmp_path / "parts.json")
    with again.timed("long", there=False):
        now[0] += 1
    assert again.entries()["run.elapsed_s"] == 6
    assert again.used == ["long"], "a record names the parts of its own run alone"


def test_a_part_of_another_experiment_is_known_by_its_run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"commit": "abc", "elapsed_s": 7.5}))
    parts = Parts(tmp_path / "out" / "parts.json")
    with parts.timed("base", there=True, folder=tmp_path), parts.timed("unknown", there=True):
        pass
    found = parts.entries()
    assert (found["run.parts.base.commit"], found["run.parts.base.elapsed_s"]) == ("abc", 7.5)
    assert found["run.parts.unknown.commit"] is None and found["run.elapsed_s"] == 7.5


def test_problems_end_in_a_status(tiny, tmp_path, capsys):
    argv = ["--name", "tiny", "--out", str(tmp_path / "out")]
    assert main(run, lambda results: [f"wrong: {results['found']}"], argv) == 1
    assert "wrong: 1.0" in capsys.readouterr().out
    assert main(run, argv=[*argv, "--value=-1"]) == 2
    assert capsys.readouterr().err.endswith("value is -1.0. Allowed: 0 or more. What to do: choose another value.\n")
