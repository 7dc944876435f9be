"""``MeshSolid`` where it stood before ``wsrl.signals.shapes``: scripts with known-bad meshes import it from here."""

from wsrl.signals.shapes.solid import MeshSolid

__all__ = ["MeshSolid"]
