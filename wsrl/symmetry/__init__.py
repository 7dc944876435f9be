"""The symmetries of networks' weights: permutation specifications, their inference and proof, and networks aligned."""

from importlib import import_module

_NAMES = {
    "PermutationSpec": "spec.spec",
    "PlainSpec": "spec.single_axis",
    "Concat": "spec.axes",
    "Product": "spec.axes",
    "ModuleAxes": "inference.described",
    "match_weights": "matching.matching",
    "Matching": "matching.matching",
    "match_activations": "matching.activations",
    "Readout": "matching.activations",
    "refine_straight_through": "matching.straight_through",
    "RefinementOptions": "matching.straight_through",
    "align_networks": "matching.alignment",
    "NetworkAlignment": "matching.alignment",
    "align_posteriors": "matching.posterior_alignment",
    "PosteriorAlignment": "matching.posterior_alignment",
    "barrier": "matching.barriers",
    "interpolate": "matching.barriers",
    "path_losses": "matching.barriers",
    "NetworkScores": "matching.barriers",
}
"""Where each name stands; it is imported when it is asked for."""

__all__ = [*_NAMES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(import_module(f"wsrl.symmetry.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'wsrl.symmetry' has no attribute {name!r}")
