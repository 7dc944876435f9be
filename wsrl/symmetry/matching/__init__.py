"""Networks and posteriors matched modulo permutation."""
