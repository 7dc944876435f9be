"""The README: its snippets run, and its tables are those of the records."""

import re
import shutil
from pathlib import Path

import pytest

from pipelines.tables import README, with_tables
from wsrl.cli.main import main

SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
TINY = (
    "--source={limit: 24}",
    "--flow.base.stages=[{resolution: 1.0, batch_size: 16, steps: 10}]",
    "--flow.base.num_heldout=2",
    "--flow.base.heldout_steps=2",
    "--flow.fit.steps=5",
    "--flow.classifier={trainer.max_epochs: 1, model.hidden: [8]}",
    "--flow.diffusion={trainer.max_epochs: 1, model.width: 16, model.depth: 1, model.heads: 2}",
    "--flow.num_samples=4",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which a tiny run stands where the README says the demo's does."""
    folder = tmp_path_factory.mktemp("readme")
    assert main(["run", "digits", "--out", str(folder / "runs/demo"), *TINY]) == 0
    return folder


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number, demo, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(demo, folder)
    monkeypatch.chdir(folder)
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})
    assert Path("runs/demo/fields/manifest.json").exists()


def test_there_are_snippets():
    assert len(SNIPPETS) == 5


def test_tables_are_those_of_the_records():
    assert with_tables(README.read_text()) == README.read_text()
