"""``MeshLimits`` where it stood before ``wsrl.signals.shapes``: scripts with known-bad meshes import it from here."""

from wsrl.signals.shapes.mesh import MeshLimits

__all__ = ["MeshLimits"]
