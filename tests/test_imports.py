"""Rooms import one way and files in no circle, only commands parse and print, and the command starts at once."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsrl

ROOT = Path(__file__).resolve().parent.parent
LEVELS = [
    {"errors"},
    {"signals", "symmetry", "adapters"},
    {"fields"},
    {"store"},
    {"fitting", "unf", "encoders", "diffusion"},
    {"training", "evaluation", "report", "exchange"},
    {"flow", "saved"},
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
    "": set(),
    "__main__": {"cli"},
}
FILES = sorted([*ROOT.glob("wsrl/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
CIRCLES = {
    # PermutationSpec.from_module, from_function and verify: an interface that a person finds is worth one lazy import.
    "wsrl.symmetry.spec.spec",
}
"""Circles that are left: a file of each, and why."""


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
    return {"" if room in (*wsrl.__all__, "__version__") else room for room in rooms}


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
    assert breaks_the_rule("encoders", *imported_rooms("def f():\n    from wsrl.training.weight_data import X"))
    assert not breaks_the_rule("cli", *imported_rooms("from wsrl import store"))


def test_no_module_is_imported_relatively():
    for path in FILES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), path


def module_name(path: Path) -> str:
    """The name under which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Modules that a module imports anywhere in its text but for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        else:
            yield from imported_modules(node)


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules each of which imports, by way of others, every other one of its set."""
    reached = {name: set(imported) for name, imported in edges.items()}
    for middle in edges:  # Warshall's closure
        for seen in reached.values():
            if middle in seen:
                seen |= reached[middle]
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in edges}
    return [set(circle) for circle in found if len(circle) > 1]


def test_files_import_in_no_circle():
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    edges = {name: {to for to in imported_modules(tree) if to in MODULES} - {name} for name, tree in trees.items()}
    found = circles(edges)
    unknown = [sorted(circle) for circle in found if not circle & CIRCLES]
    assert not unknown, f"these import each other: {unknown}"
    gone = [name for name in CIRCLES if not any(name in circle for circle in found)]
    assert not gone, f"no longer in a circle, take it off the list: {gone}"


def test_the_rule_sees_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


EARLIER_PLACES = {"mesh.py", "mesh_files.py", "solid.py"}
"""Modules of one import, kept for scripts of ours that outlive the files' move."""


def test_file_and_class_names_are_unique():
    """A command's file is named after the command; ``source`` is a signal's and a store's, as DESIGN has it."""
    files = [path.name for path in FILES if room_of(path) not in ("cli", "__main__", "pipelines")]
    twice = {name for name in files if files.count(name) > 1} - {"__init__.py", "source.py", *EARLIER_PLACES}
    assert not twice, f"two files of wsrl are called {twice}"
    trees = [ast.parse(path.read_text()) for path in FILES if room_of(path) != "pipelines"]
    classes = [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    assert not {name for name in classes if classes.count(name) > 1}


def defined_names(path: Path) -> set[str]:
    """Names that a module has at its top, those that it imports included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def test_every_name_that_is_imported_exists():
    """Also of imports within functions, which nothing else reads before they run."""
    known = {name: defined_names(path) for name, path in MODULES.items()}
    lazy = [name for name, names in known.items() if "__getattr__" in names]
    for path in [*FILES, *ROOT.glob("tests/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("wsrl", "pipelines"):
                wrong = [
                    alias.name
                    for alias in node.names
                    if f"{node.module}.{alias.name}" not in MODULES
                    and node.module not in lazy
                    and alias.name not in known.get(node.module, ())
                ]
                assert not wrong, f"{path}: {node.module} has no {wrong}"


def test_pipelines_import_of_the_commands_their_parser_at_most():
    for path in ROOT.glob("pipelines/*.py"):
        assert not re.findall(r"^.*(?:from|import) wsrl\.cli(?!\.parser).*$", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) not in ("cli", "__main__", "pipelines")], ids=module_name
)
def test_the_library_neither_parses_a_command_line_nor_prints(path):
    tree = ast.parse(path.read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"print", "input"}
    assert not {"argparse", "wsrl.cli"} & set(imported_modules(tree))
    named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    assert not named & {"sys.argv", "sys.stdout", "sys.stderr", "Namespace"}


def test_commands_parse_call_and_print():
    """Whatever takes more than 25 lines computes, and belongs to the library."""
    for path in ROOT.glob("wsrl/cli/*.py"):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert not [node.name for node in functions if node.end_lineno - node.lineno >= 25], path


def test_files_get_their_names_in_durable_alone():
    for path in FILES:
        if path.name != "durable.py":
            calls = [
                ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            ]
            assert not {"os.replace", "os.rename", "shutil.move"} & set(calls), path


@pytest.mark.parametrize("statement", ["import wsrl", "import wsrl.cli.main", "from wsrl.cli import train, eval"])
def test_light_imports(statement):
    light = statement != "from wsrl.cli import train, eval"  # the start of every command
    heavy = [
        *(["jsonargparse", "rich"] if light else []),
        "torch",
        "numpy",
        "lightning",
        "diffusers",
        "peft",
        "h5py",
        "sklearn",
        "skimage",
        "matplotlib",
        "PIL",
    ]
    code = f"import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
