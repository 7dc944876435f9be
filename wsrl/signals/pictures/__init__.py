"""Pictures as signals."""
