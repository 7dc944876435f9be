"""``mesh_content`` where it stood before ``wsrl.signals.shapes``: scripts with known-bad meshes import it from here."""

from wsrl.signals.shapes.mesh_files import mesh_content

__all__ = ["mesh_content"]
