"""Meshes as signals: read, repaired, and measured."""

from wsrl.signals.shapes.solid import signed_distance

__all__ = ["signed_distance"]
