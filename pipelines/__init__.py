"""Experiments that chain the stages; run from a checkout with ``python -m pipelines.<name> --config ...``."""
