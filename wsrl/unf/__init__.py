"""Universal neural functionals: networks over the weights of networks that commute with their permutations."""

from wsrl.unf.layers import EquivariantLinear
from wsrl.unf.networks import EquivariantNetwork, InvariantNetwork, InvariantPool, UnfConfig

__all__ = ["EquivariantLinear", "EquivariantNetwork", "InvariantNetwork", "InvariantPool", "UnfConfig"]
