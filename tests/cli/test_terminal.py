"""The real commands on a real pseudo-terminal and through pipes: the same status, the same files, no traceback.

A terminal changes what Lightning, rich and tqdm do, so that a fault there shows nowhere else: ``wsrl train`` once ended
in a traceback on every terminal (Lightning-AI/pytorch-lightning#11158 is of the kind) while all tests passed.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from terminal import COLUMNS, WSRL, on_terminal, through_pipes
from tiny import TINY_BASE, TINY_FIT

from wsrl.cli.main import COMMANDS

TERMINALS = {
    "plain": {},
    "dumb": {"TERM": "dumb"},
    "no-colour": {"NO_COLOR": "1"},
    "ascii": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
}
ONE_EPOCH = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.num_workers", "0")
SMALL = ("--model.width", "8", "--model.depth", "1", "--model.heads", "2")
FLOW = (
    "--flow.base.model.field", "{width: 8, depth: 2, num_frequencies: 4}", "--flow.base.model.latent_size", "4",
    "--flow.base.stages", "[{resolution: 1.0, batch_size: 8, steps: 5}]", "--flow.base.num_heldout", "2",
    "--flow.base.heldout_steps", "2", "--flow.fit.steps", "3", "--flow.num_samples", "8", "--flow.look_size", "16",
    "--flow.classifier", "{trainer.max_epochs: 1}",
    "--flow.diffusion", "{trainer.max_epochs: 1, model.width: 8, model.depth: 1, model.heads: 2}", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures, state dicts, a base field, a store and a diffusion model; commands copy none of it."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("terminal")
    for name in ("gradient", "größe"):  # a class whose name a terminal of 1980 cannot show
        (root / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            Image.effect_noise((8, 8), 20 + 5 * i).save(root / "pictures" / name / f"{i:02d}.png")
    (root / "zoo").mkdir()
    for i in range(2):
        sizes = {"0": (4, 2), "2": (1, 4)}
        tensors = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
        tensors |= {f"{name}.bias": torch.randn(size[0]) for name, size in sizes.items()}
        torch.save(tensors, root / "zoo" / f"f{i}.pt")
        save_file(tensors, root / f"f{i}.safetensors")
    (root / "zoo" / "network.yaml").write_text(
        "field: {width: 4, depth: 1, activation: relu}\nsignal: {grid: [8, 8]}\n"
    )
    for words in (
        ("base", "pictures", "--source", "{size: 8, mode: L}", "--out", "base", *TINY_BASE),
        ("build", "pictures", "--source", "{size: 8, mode: L}", "--base", "base", "--out", "store", *TINY_FIT),
        ("train", "diffusion", "--data.store", "store", "--trainer.default_root_dir", "model", *ONE_EPOCH, *SMALL),
    ):
        done = through_pipes((*WSRL, *words), root)
        assert done.status == 0, done.text
    return root


def train(task, *more):
    return ("train", task, "--data.store", "../../store", "--trainer.default_root_dir", "out", *ONE_EPOCH, *more)


PICTURES = ("../../pictures", "--source", "{size: 8, mode: L}")
CASES = {
    "demo": ("demo", "--help"),  # .ci/run runs it whole
    "data": ("data", "prepare", "digits", "--limit", "3", "--out", "out"),
    "base": ("base", *PICTURES, "--out", "out", *TINY_BASE),
    "build": ("build", *PICTURES, "--base", "../../base", "--out", "out", *TINY_FIT),
    "run": ("run", *PICTURES, "--out", "out", *FLOW),
    "classifier": train("classifier"),
    "classifier without a bar": train("classifier", "--trainer.enable_progress_bar", "false"),
    "regressor": train("regressor"),
    "autoencoder": train("autoencoder", "--model.width", "8", "--model.depth", "1", "--model.heads", "2"),
    "diffusion": train("diffusion", *SMALL),
    "sample": ("sample", "../../model", "--num", "2", "--steps", "2", "--out", "out", "--device", "cpu"),
    "reconstruction": ("eval", "reconstruction", "../../store", "--out", "out.json"),
    "probe": ("eval", "probe", "../../store", "--out", "out.json"),
    "generation": (
        "eval", "generation", "../../model", "--store", "../../store", "--num", "4", "--steps", "2",
        "--out", "out.json",
    ),
    "structure": ("eval", "structure", "../../store", "--out", "out.json"),
    "import": ("import", "--state-dicts", "../../zoo", "--out", "out"),
    "export": ("export", "../../store", "--out", "out"),
    "align": ("align", "../../f0.safetensors", "../../f1.safetensors", "--out", "out"),
    "info": ("info", "../../store"),
    "verify": ("verify", "../../store"),
}  # fmt: skip
COUNTED = {"base", "build", "classifier", "regressor", "autoencoder", "diffusion"}
"""Cases that count steps or fields, and therefore draw a bar."""


def files_of(folder: Path) -> set[str]:
    """Names of the files below a folder, without what loggers name after the time and the machine."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"events\.out\.tfevents\..*", "events", name) for name in names}


EVERYWHERE = ("base", "build", "classifier", "export", "info")
"""Cases that run on every kind of terminal; the others on one kind."""
RUNS = [
    (kind, name) for kind in ("pipe", *TERMINALS) for name in CASES if kind in ("pipe", "plain") or name in EVERYWHERE
]
DRIVER = """
import json, os, sys, traceback
from wsrl.cli.main import main
for name, words in json.loads(sys.argv[1]).items():
    os.makedirs(name)
    os.chdir(name)
    try:
        status = main(words)
    except BaseException:
        traceback.print_exc()
        status = "traceback"
    os.chdir("..")
    print(f"<<{name}: {status}>>", flush=True)
"""
"""Runs every case in one process, in a folder each, so that the libraries are loaded once."""


@pytest.fixture(scope="module")
def driven(made):
    """A function that runs all cases on a kind of terminal, once: folder, and text and status of each case."""
    known = {}

    def drive(kind):
        if kind not in known:
            folder = made / kind
            folder.mkdir()
            cases = {name: CASES[name] for where, name in RUNS if where == kind}
            argv = (sys.executable, "-c", DRIVER, json.dumps(cases))
            done = through_pipes(argv, folder) if kind == "pipe" else on_terminal(argv, folder, TERMINALS[kind])
            found = re.findall(r"(.*?)<<([^<>]*): (\w+)>>\s*", done.text, re.DOTALL)
            known[kind] = folder, {name: (text, status) for text, name, status in found}
        return known[kind]

    return drive


@pytest.mark.parametrize(("kind", "name"), RUNS)
def test_every_command_ends_well(name, kind, driven):
    text, status = driven(kind)[1][name]
    assert status == "0" and "Traceback" not in text, text
    if kind in ("pipe", "dumb"):
        assert "\x1b" not in text and "\r" not in text.replace("\r\n", "\n")
    elif kind == "no-colour":
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)
    elif name in COUNTED:
        assert "/s" in text and "\x1b[?25l" in text  # a bar with its rate


@pytest.mark.parametrize("name", CASES)
def test_a_terminal_and_a_pipe_leave_the_same_files(name, driven):
    assert files_of(driven("plain")[0] / name) == files_of(driven("pipe")[0] / name)


def test_a_command_of_its_own_process_ends_well(made):
    folder = made / "own/classifier"
    folder.mkdir(parents=True)
    done = on_terminal((*WSRL, *CASES["classifier"]), folder)
    assert done.status == 0 and "Traceback" not in done.text and (folder / "out/model").is_dir(), done.text


def test_all_commands_are_among_the_cases():
    assert {words[0] for words in CASES.values()} == set(COMMANDS)


def test_the_end_fits_on_a_terminal(driven):
    folder, found = driven("pipe")
    lines = found["run"][0].splitlines()
    ending = lines[next(i for i, line in enumerate(lines) if line.startswith("out: base field, fields and models")) :]
    assert len(ending) <= 20 and all(len(line) < COLUMNS for line in ending)
    assert "out/samples.png" in found["run"][0] and ending[-1].startswith("took:")
    assert len(json.loads((folder / "run/out/metrics.json").read_text())) > 40


QUIET = """
import sys, time
from wsrl.cli import display
display.SILENCE_S = display.LINE_EVERY_S = 0.5
with display.never_silent("nothing"):
    time.sleep({before})
    with display.show_progress("items", 10) as shown:
        shown.advance(5, "halfway")
        time.sleep(1.2)
"""


def test_a_pipe_is_never_silent(tmp_path):
    done = through_pipes((sys.executable, "-c", QUIET.format(before=1.2)), tmp_path)
    assert done.status == 0, done.text
    working = [line for line in done.text.splitlines() if line.startswith("wsrl nothing: working")]
    loop = [line for line in done.text.splitlines() if line.startswith("items: 5/10")]
    assert len(working) == 2 and len(loop) == 2 and "s left  halfway" in loop[0]


def test_a_bar_is_not_interrupted_by_lines(tmp_path):
    done = on_terminal((sys.executable, "-c", QUIET.format(before=0)), tmp_path)
    assert done.status == 0 and "5/10" in done.text and "working" not in done.text


def test_a_reader_that_goes_away_ends_the_command_quietly(made):
    done = through_pipes(("sh", "-c", f"{sys.executable} -m wsrl info store | head -1"), made)
    assert done.status == 0 and "Traceback" not in done.text and os.linesep in done.text
