"""Tasks give the same in one process and in several; what is there is not made again, and errors come through."""

import os

import pytest
import torch

from pipelines.experiment import Experiment
from pipelines.side_by_side import Task, made


def squared(number, folder):
    (folder / f"{number}.made").touch(exist_ok=False)
    return {"value": number**2, "process": os.getpid(), "threads": torch.get_num_threads()}


def refused(number, folder):
    raise ValueError(f"{number} is refused")


def tasks_in(folder, make=squared, how=1):
    return [
        Task(part=f"square.{i}", path=folder / f"{i}.json", how=how, make=make, arguments=(i, folder)) for i in range(3)
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_tasks_are_made_once_and_kept(tmp_path, processes):
    experiment = Experiment(name="tiny", out=str(tmp_path))
    found = made(experiment, tasks_in(tmp_path), processes)
    assert [each["value"] for each in found] == [0, 1, 4]
    assert all((each["process"] == os.getpid()) == (processes == 1) for each in found)
    assert processes == 1 or all(each["threads"] == 1 for each in found)
    assert set(experiment.parts.noted) == {"square.0", "square.1", "square.2"}
    assert made(experiment, tasks_in(tmp_path), processes) == found  # `squared` would refuse to be called again
    (tmp_path / "1.json").unlink()
    (tmp_path / "1.made").unlink()
    assert [each["value"] for each in made(experiment, tasks_in(tmp_path), processes)] == [0, 1, 4]


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_come_through(tmp_path, processes):
    with pytest.raises(ValueError, match="0 is refused"):
        made(Experiment(name="tiny", out=str(tmp_path)), tasks_in(tmp_path, refused), processes)
    assert not list(tmp_path.glob("?.json"))
