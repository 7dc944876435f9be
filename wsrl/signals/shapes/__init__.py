"""Meshes as signals: read, repaired, and measured."""
