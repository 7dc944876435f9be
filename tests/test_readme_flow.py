"""What a newcomer types: the commands of the README in their order and its snippets, on a pseudo-terminal."""

import re
import shlex
import sys

import pytest
import torch
from PIL import Image

from pipelines.tables import README
from tests.cli.terminal import on_terminal
from wsrl.signals import open_source

TEXT = README.read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ONE_EPOCH = "--trainer.max_epochs 1"
STAGES = "'[{resolution: 1.0, batch_size: 16, steps: 10}]'"
FEW = "--source '{limit: {train: 40, test: 20}}'"
SHORT = {
    "wsrl base": f"{FEW} --train.stages {STAGES} --train.num_heldout 2 --train.heldout_steps 2",
    "wsrl build": f"{FEW} --fit.steps 5",
    "wsrl train classifier": ONE_EPOCH,
    "wsrl train diffusion": f"{ONE_EPOCH} --model.width 16 --model.depth 1 --model.heads 2",
    "wsrl sample": "--steps 3",
    "wsrl eval generation": "--num 8 --steps 3 --features-from store",
    "wsrl run": f"--flow.base.stages {STAGES} --flow.base.num_heldout 2 --flow.base.heldout_steps 2 --flow.fit.steps 5 "
    "--flow.classifier '{trainer.max_epochs: 1}' --flow.num_samples 8 "
    "--flow.diffusion '{trainer.max_epochs: 1, model.width: 16, model.depth: 1, model.heads: 2}'",
}
"""What is added to a command so that it takes seconds."""


def commands(heading: str) -> list[str]:
    """The lines of the first block below a heading, without their comments."""
    block = TEXT.partition(f"\n## {heading}\n")[2].partition("```\n")[2].partition("```")[0]
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.startswith("wsrl ")]


def shortened(command: str) -> str:
    """The command with what makes it short."""
    return " ".join([command, *(more for start, more in SHORT.items() if command.startswith(start))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the README's commands take for granted: pictures, and fields of others."""
    root = tmp_path_factory.mktemp("newcomer")
    for label in ("one", "two"):
        (root / "path/to/pictures" / label).mkdir(parents=True)
        for i in range(15):
            Image.effect_noise((40, 30), 20 + 5 * i).save(root / "path/to/pictures" / label / f"{i:02d}.png")
    (root / "zoo").mkdir()
    for i in range(2):
        sizes = {"0": (8, 2), "2": (1, 8)}
        tensors = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
        torch.save(
            tensors | {f"{name}.bias": torch.randn(size[0]) for name, size in sizes.items()}, root / f"zoo/f{i}.pt"
        )
    (root / "net.yaml").write_text("field: {width: 8, depth: 1, omega: 30}\nsignal: {grid: [8, 8]}\n")
    return root


def typed(command: str, folder) -> None:
    """Run a line of a shell on a terminal; it has to end well."""
    program = shlex.quote(sys.executable)
    done = on_terminal(("sh", "-c", re.sub(r"^wsrl ", f"{program} -m wsrl ", command)), folder)
    assert done.status == 0 and "Traceback" not in done.text, f"{command}\n{done.text}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_flow_as_it_is_typed(folder):
    try:
        open_source("fashion-mnist", limit=1)
    except Exception as error:
        pytest.skip(f"Fashion-MNIST is not installed: {error}")
    flow = commands("The flow")
    assert len(flow) == 10
    for command in flow:
        typed(shortened(command), folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_pictures_as_they_are_typed(folder):
    for number, command in enumerate(commands("Your own pictures")):
        typed(shortened(command.replace("runs/mine", f"runs/mine-{number}")), folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_snippets_as_they_are_typed(folder):
    typed("wsrl demo --quick", folder)
    for snippet in SNIPPETS:
        done = on_terminal((sys.executable, "-c", snippet), folder)
        assert done.status == 0 and "Traceback" not in done.text, f"{snippet}\n{done.text}"
