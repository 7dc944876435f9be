"""The pages: their snippets run, their tables are those of the records, their links and the files they name exist."""

import re
import shutil
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from pipelines.tables import README, RESULTS, TABLES, with_tables
from wsrl.cli.main import main
from wsrl.fitting.fit_config import FitConfig
from wsrl.training.base_data import Stage
from wsrl.training.base_field import BaseTrainingConfig

ROOT = README.parent
PAGES = [
    README,
    RESULTS,
    ROOT / "configs/README.md",
    *sorted(ROOT.glob("data/*/README.md")),
    *sorted(ROOT.glob("wsrl/*/README.md")),
]
SNIPPETS = {
    f"{page.relative_to(ROOT)} {number}": snippet
    for page in PAGES
    if page.parent.name != "store"  # tests/store reads a store with its program
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}
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
LARGEST_BYTES = 14_000
SHORT = {
    "train_base(source, ": "train_base(source, TINY_BASE, ",
    "build_store(source, ": "build_store(source, fit=TINY_FIT, ",
    "size=64": "size=8",
    '"max_epochs": 100': '"max_epochs": 1, "enable_progress_bar": False',
}
"""What a snippet does at length, and how it is cut to a second."""
TINY_NAMES = {
    "TINY_BASE": BaseTrainingConfig(
        stages=(Stage(resolution=1.0, batch_size=4, steps=5),), num_heldout=2, heldout_steps=2
    ),
    "TINY_FIT": FitConfig(steps=5),
}
TOP_LEVEL = ("wsrl", "pipelines", "configs", "data", "tests", ".readme", ".ci")
MADE = re.compile(r"data/(digits|fashion_mnist|noto_emoji|furniture|solids|shapenet)/(?!README)")
"""What ``wsrl data prepare`` leaves, which git ignores."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which a tiny run stands where the pages say the demo's does."""
    folder = tmp_path_factory.mktemp("readme")
    assert main(["run", "digits", "--out", str(folder / "runs/demo"), *TINY]) == 0
    (folder / "path/to/pictures").mkdir(parents=True)
    for i in range(6):
        Image.effect_noise((12, 10), 20 + 5 * i).save(folder / f"path/to/pictures/{i}.png")
    return folder


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet_runs(name, demo, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(demo, folder)
    monkeypatch.chdir(folder)
    snippet = SNIPPETS[name]
    for long, short in SHORT.items():
        snippet = snippet.replace(long, short)
    exec(compile(snippet, name, "exec"), dict(TINY_NAMES))
    assert Path("runs/demo/fields/manifest.json").exists()


def test_there_are_snippets():
    assert {name.rpartition("/")[0] for name in SNIPPETS} >= {"", "wsrl/diffusion", "wsrl/encoders", "wsrl/symmetry"}


def test_tables_are_those_of_the_records():
    for page in (README, RESULTS):
        assert with_tables(page.read_text()) == page.read_text()


def test_every_table_stands_on_a_page():
    shown = re.findall(r"<!-- table (\S+) -->", README.read_text() + RESULTS.read_text())
    assert sorted(shown) == sorted(TABLES)


def test_the_first_page_is_short():
    assert len(README.read_bytes()) <= LARGEST_BYTES


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page}: {target} is not there"
        assert not anchor or anchor in anchors(file), f"{page}: {file} has no heading {anchor}"


def spelled_out(name: str) -> list[str]:
    """A name with each of its alternatives in braces."""
    parts = re.split(r"\{([^}]*)\}", name)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in product(*choices)]


def named_files(text: str) -> list[str]:
    """The files and folders of the repository that a page names, with a star for what stands in angle brackets."""
    text = re.sub(r"<[^>\n]*>", "*", text)
    words = re.findall(rf"(?<![\w./~-])((?:{'|'.join(map(re.escape, TOP_LEVEL))})/[\w./{{}}*,-]+)", text)
    return [name for word in words for name in spelled_out(word.rstrip(".,")) if not MADE.match(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_are_there(page):
    text = page.read_text()
    missing = [name for name in named_files(text) if not any(ROOT.glob(name.rstrip("/")))]
    assert not missing, f"{page} names what is not there"


def test_a_missing_file_is_seen():
    assert named_files("see `configs/{digits,nowhere}/base.yaml`, wsrl/none.py.") == [
        "configs/digits/base.yaml",
        "configs/nowhere/base.yaml",
        "wsrl/none.py",
    ]


def test_the_page_of_configurations_names_every_one():
    folder = ROOT / "configs"
    words = re.findall(r"`([\w{},*]+/[\w{},*]+\.yaml)`", (folder / "README.md").read_text())
    named = {path for word in words for name in spelled_out(word) for path in folder.glob(name)}
    assert named == set(folder.rglob("*.yaml"))
    assert all(any(folder.glob(name)) for word in words for name in spelled_out(word))
