"""Permutation specs: which axes of which tensors move together."""
