"""The symmetries of networks' weights: permutation specifications, their inference and their proof."""

from wsrl.symmetry.axes import Concat, Product
from wsrl.symmetry.given import Given
from wsrl.symmetry.plain import PlainSpec
from wsrl.symmetry.spec import PermutationSpec

__all__ = ["Concat", "Given", "PermutationSpec", "PlainSpec", "Product"]
