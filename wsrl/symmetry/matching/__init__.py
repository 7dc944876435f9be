"""Networks and posteriors matched modulo permutation."""

MATCHING_METHODS = ("weights", "activations", "straight-through")
"""What networks are matched by; the last one trains the permutation for a low loss half way between them."""
