"""Universal neural functionals: networks over the weights of networks that commute with their permutations."""

from wsrl.unf.functionals import EquivariantNetwork, InvariantNetwork, InvariantPool, UnfConfig
from wsrl.unf.layers import EquivariantLinear

__all__ = ["EquivariantLinear", "EquivariantNetwork", "InvariantNetwork", "InvariantPool", "UnfConfig"]
