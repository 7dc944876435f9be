"""The symmetries of networks' weights: permutation specifications, their inference and proof, and networks aligned."""

from importlib import import_module

from wsrl.symmetry.inference.described import Given
from wsrl.symmetry.spec.axes import Concat, Product
from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.symmetry.spec.spec import PermutationSpec

_ALIGNING = {
    "align_networks": "alignment",
    "NetworkAlignment": "alignment",
    "match_activations": "activations",
    "Readout": "activations",
    "match_weights": "matching",
    "Matching": "matching",
    "refine_straight_through": "straight_through",
    "RefinementOptions": "straight_through",
    "barrier": "barriers",
    "interpolate": "barriers",
    "path_losses": "barriers",
    "NetworkScores": "barriers",
}
"""What is imported when it is asked for: the assignment of SciPy takes its time."""

__all__ = ["Concat", "Given", "PermutationSpec", "PlainSpec", "Product", *_ALIGNING]


def __getattr__(name: str):
    if name in _ALIGNING:
        return getattr(import_module(f"wsrl.symmetry.matching.{_ALIGNING[name]}"), name)
    raise AttributeError(f"module 'wsrl.symmetry' has no attribute {name!r}")
