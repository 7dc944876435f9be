"""Readers of mesh files: bytes to polygons, exactly as the file has them; one format per module."""
