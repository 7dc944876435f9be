"""Layers import one way, and the command starts without the heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = [
    {"errors"},
    {"signals", "symmetry", "adapters"},
    {"fields"},
    {"store"},
    {"fitting", "unf", "encoders", "diffusion"},
    {"training", "evaluation", "report", "exchange"},
    {"cli"},
    {"pipelines"},
]
RANK = {room: rank for rank, rooms in enumerate(LEVELS) for room in rooms}
ANYWHERE = {"provenance", "progress", "errors", "durable", "native", "caches", "options", ""}
SELF_CONTAINED = {
    "provenance": {"errors", "durable", ""},
    "errors": set(),
    "progress": set(),
    "durable": {"errors"},
    "caches": set(),
    "options": {"errors"},
    "native": {"caches", "durable"},
    "": {"store"},
    "__main__": {"cli"},
}
FILES = sorted([*ROOT.glob("wsrl/**/*.py"), *ROOT.glob("pipelines/**/*.py")])


def room_of(path: Path) -> str:
    """The room of a file: the folder under ``wsrl``, the module itself at the top, or ``pipelines``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "pipelines":
        return "pipelines"
    return "" if parts[1] == "__init__" else parts[1]


def imported_rooms(source: str) -> set[str]:
    """Rooms of this project that a module imports anywhere in its text."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [f"wsrl.{alias.name}" for alias in node.names] if node.module == "wsrl" else [node.module]
    ours = [name.split(".") for name in names if name.split(".")[0] in ("wsrl", "pipelines")]
    rooms = {"pipelines" if parts[0] == "pipelines" else (parts[1] if len(parts) > 1 else "") for parts in ours}
    return {"" if room in ("WeightStore", "__version__") else room for room in rooms}


def breaks_the_rule(room: str, imported: str) -> bool:
    """Whether a module of one room may not import the other."""
    if room in SELF_CONTAINED:
        return imported not in SELF_CONTAINED[room]
    if imported in ANYWHERE or imported == room:
        return False
    return RANK[imported] > RANK[room]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    room = room_of(path)
    broken = sorted(name for name in imported_rooms(path.read_text()) if breaks_the_rule(room, name))
    assert not broken, f"{room or 'wsrl'} may not import {', '.join(broken)}"


def test_the_rule_sees_a_wrong_import():
    assert breaks_the_rule("fields", "store")
    assert breaks_the_rule("fitting", "evaluation")
    assert breaks_the_rule("encoders", *imported_rooms("def f():\n    from wsrl.training.data import X"))
    assert not breaks_the_rule("cli", *imported_rooms("from wsrl import store"))


def test_no_module_is_imported_relatively():
    for path in FILES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), path


@pytest.mark.parametrize("statement", ["import wsrl", "import wsrl.cli.main", "from wsrl.cli import train, eval"])
def test_light_imports(statement):
    heavy = ["torch", "numpy", "lightning", "diffusers", "peft", "h5py", "sklearn", "skimage", "matplotlib", "PIL"]
    code = f"import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
