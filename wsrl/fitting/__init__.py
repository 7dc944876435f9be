"""Many fields at once."""
