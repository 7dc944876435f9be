"""The floors of the room: specs, their inference, matching; fields' forms stand above all."""

import ast
from pathlib import Path

import wsrl.symmetry

ROOM = Path(wsrl.symmetry.__file__).parent
FLOORS = ("spec", "inference", "matching", "fields")


def floors_of_imports(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    parts = [(node.module or "").split(".") for node in nodes]
    return {part[2] for part in parts if part[:2] == ["wsrl", "symmetry"] and len(part) > 2}


def test_no_floor_imports_a_higher_one():
    for path in ROOM.glob("*/*.py"):
        own = FLOORS.index(path.parent.name)
        above = {floor for floor in floors_of_imports(path) if FLOORS.index(floor) > own}
        assert above == ({"inference"} if path.name == "spec.py" else set()), path  # lazily: from_module, verify
